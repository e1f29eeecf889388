"""Training: the data, the network, its evaluation and its compilation. train.py and dvc.yaml call these
modules."""
