"""Other servers' APIs, so that their clients need no change: TensorFlow Serving's REST API, the Open Inference
Protocol, and what MLflow's scoring server and SageMaker's containers answer."""
