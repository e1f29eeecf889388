"""Runs the detector's training: `python -m digits.training.detector`."""

from digits.training.detector.train import main
from digits.training.stage import run

if __name__ == "__main__":
    run(main)
