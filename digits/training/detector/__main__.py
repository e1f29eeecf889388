"""Runs the detector's training: `python -m digits.training.detector`."""

from digits.training.detector.train import main

if __name__ == "__main__":
    main()
