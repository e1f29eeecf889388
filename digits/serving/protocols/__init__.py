"""Other servers' APIs, so that their clients need no change: TensorFlow Serving's REST API and the Open
Inference Protocol."""
