"""What training, serving and the client share, one idea a module, for app.py, train.py and predicted.py."""
