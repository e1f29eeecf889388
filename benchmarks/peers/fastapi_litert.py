"""FastAPI + uvicorn (uvloop, httptools) + LiteRT, without metrics and request logs."""

import io

import numpy as np
from engine import answers
from fastapi import FastAPI, Request
from PIL import Image
from pydantic import BaseModel

app = FastAPI()


class Query(BaseModel):
    image: list[list[int]] | None = None
    images: list[list[list[int]]] | None = None


@app.post("/predict")
async def predict(query: Query):
    if query.image is not None:
        return answers([query.image])[0]
    return {"predictions": answers(query.images)}


@app.post("/raw")
async def raw(request: Request):
    found = answers(np.frombuffer(await request.body(), np.uint8))
    return found[0] if len(found) == 1 else {"predictions": found}


# only decodes the picture, without finding, scaling and centring the digit as this service does
@app.post("/png")
async def png(request: Request):
    picture = Image.open(io.BytesIO(await request.body())).convert("L").resize((28, 28))
    return answers([np.asarray(picture)])[0]
