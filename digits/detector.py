"""Finds every digit of a grey picture with one fully convolutional network."""

from digits.imaging.contrast import normalize

__all__ = ["normalize"]
