"""What trains the network: data, augmentation, the network itself, its compiled form. train.py and dvc.yaml
call it."""
