"""BentoML with adaptive batching, in which the server combines single calls, and two workers."""

import bentoml
import numpy as np
from engine import answers


@bentoml.service(workers=2, traffic={"max_concurrency": 1024})
class Digits:
    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=256, max_latency_ms=1000)
    def predict(self, images: np.ndarray) -> np.ndarray:
        return np.array([answer["predicted_digit"] for answer in answers(images)])
