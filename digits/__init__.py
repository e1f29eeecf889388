"""What training, serving and the client share, one idea a module; app.py, train.py and predicted.py call it."""
