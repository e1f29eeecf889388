"""Digits as in low-resolution pictures. MNIST has nothing like an enlarged scan of a digit that is eight pixels
high, so some of its digits are reduced, enlarged, and prepared as the service prepares pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from digits.imaging import prepare_grey


def low_resolution(images: np.ndarray, seed: int) -> np.ndarray:
    """Digits as they look after the service has prepared low-resolution pictures of them, uint8 (n, 28, 28) like
    `images`.

    Each digit is reduced to a height of 7 to 16 pixels, with a slightly different aspect ratio, enlarged
    smoothly, and prepared as in the service. Raises ValueError for an image without ink.
    """
    rng = np.random.default_rng(seed)
    seen = np.empty_like(images)
    for i, image in enumerate(images):
        picture = Image.fromarray(image)
        box = picture.getbbox()
        if box is None:
            raise ValueError("an image without ink")
        height = rng.uniform(7, 16)
        width = height * (box[2] - box[0]) / (box[3] - box[1]) * np.exp(rng.normal(0, 0.15))
        # a wide digit keeps its shape
        shrink = min(1.0, 20 / width)
        size = max(2, round(width * shrink)), max(2, round(height * shrink))
        enlarge = rng.uniform(40, 120) / height
        small = picture.resize(size, Image.Resampling.BOX, box)
        large = small.resize((round(size[0] * enlarge), round(size[1] * enlarge)), Image.Resampling.BICUBIC)
        seen[i] = prepare_grey(np.asarray(ImageOps.expand(large, 8)))
    return seen
