"""Training: the stages of the pipeline (dvc.yaml), and the modules that they share."""
