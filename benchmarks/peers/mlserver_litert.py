"""MLServer + LiteRT: a runtime with KServe's Open Inference Protocol in JSON."""

import numpy as np
from engine import answers
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Digits(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        found = answers(NumpyCodec.decode_input(payload.inputs[0]))
        digits = np.array([a["predicted_digit"] for a in found])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("digit", digits)])
