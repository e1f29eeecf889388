"""Classifies a folder of 28x28 PNGs with Keras `predict` in a loop, 256 pictures at a time, as a simple script
would: python keras_loop.py MODEL FOLDER. Prints the seconds and the digits."""

import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image

model = keras.models.load_model(sys.argv[1], compile=False)
files = sorted(Path(sys.argv[2]).glob("*.png"))
model.predict(np.zeros((256, 28, 28, 1), np.float32), verbose=0)
digits, begun = [], time.perf_counter()
for start in range(0, len(files), 256):
    images = np.stack([np.asarray(Image.open(path), np.float32) for path in files[start : start + 256]])
    digits += model.predict(images[..., None] / 255, verbose=0).argmax(1).tolist()
print(json.dumps({"seconds": time.perf_counter() - begun, "digits": digits}))
