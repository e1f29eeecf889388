"""FastAPI + uvicorn + Keras' .h5 through tf.function; BENCH_H5 names the .h5."""

import os

import numpy as np
import tensorflow as tf
from fastapi import FastAPI
from pydantic import BaseModel

model = tf.keras.models.load_model(os.environ["BENCH_H5"], compile=False)
run = tf.function(
    lambda x: model(x, training=False), input_signature=[tf.TensorSpec((None, 28, 28, 1), tf.float32)]
)
app = FastAPI()


class Query(BaseModel):
    image: list[list[int]] | None = None
    images: list[list[list[int]]] | None = None


@app.post("/predict")
async def predict(query: Query):
    images = [query.image] if query.images is None else query.images
    table = run(np.asarray(images, np.float32)[..., None] / np.float32(255)).numpy()
    found = [
        {"predicted_digit": int(p.argmax()), "predicted_probability": round(float(p.max()), 4)} for p in table
    ]
    return found[0] if query.images is None else {"predictions": found}
