"""Trains the detector: pages made by program with the position of every digit, the network, and its
training."""
