"""Flask + Keras `predict`, like the first version of this service; BENCH_H5 names the .h5."""

import os

import keras
import numpy as np
from flask import Flask, request

model = keras.models.load_model(os.environ["BENCH_H5"], compile=False)
app = Flask(__name__)


@app.post("/predict")
def predict():
    query = request.get_json()
    images = query.get("images") or [query["image"]]
    table = model.predict(np.asarray(images, np.float32)[..., None] / np.float32(255), verbose=0)
    found = [
        {"predicted_digit": int(p.argmax()), "predicted_probability": round(float(p.max()), 4)} for p in table
    ]
    return {"predictions": found} if "images" in query else found[0]
