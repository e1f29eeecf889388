"""BentoML + LiteRT, two workers."""

import bentoml
from engine import answers


@bentoml.service(workers=2)
class Digits:
    @bentoml.api
    def predict(self, image: list | None = None, images: list | None = None) -> dict:
        return answers([image])[0] if images is None else {"predictions": answers(images)}
