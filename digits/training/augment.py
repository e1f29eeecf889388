"""Makes more of the training images, so that the network meets more hands than MNIST's five hundred. train.py's
`fit` learns from `batches`, in which every image is varied at random by `augment`: turned, slanted, scaled, moved,
written with a thicker or thinner pen, seen less sharply. `low_resolution` makes images to add to MNIST's."""

from __future__ import annotations

import math
from functools import reduce
from io import BytesIO

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from digits.imaging import prepare

# how much the last batches of a run are varied, against the first
LAST_VARIED = 0.3


def batches(
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    seed: int,
    varied: dict[str, float] | None,
    steps: int | None = None,
    alternating: int = 0,
    sets: int = 1,
) -> tf.data.Dataset:
    """Endless shuffled batches of images float32 (n, 28, 28, 1) in [0, 1] and labels float32 (n, OUTPUTS).

    images: uint8 (n, 28, 28). labels: float32 (n, OUTPUTS). varied: how much, as the keyword arguments of
    `augment`; without it the images stay as they are. steps: how many batches will be taken; the last third of
    them are varied less and less, so that the network ends with images like MNIST's own. alternating: the last so
    many images are split into `sets`, and each epoch takes the next of these beside all other images. The same
    seed gives the same batches.
    """
    fixed = len(images) - alternating
    # numbers are shuffled and a batch is gathered at once: cheaper than moving images one by one
    epochs = [np.r_[:fixed, fixed + part : len(images) : sets] for part in range(sets)]
    shuffled = [tf.data.Dataset.from_tensor_slices(one).shuffle(len(one), seed=seed) for one in epochs]
    order = reduce(tf.data.Dataset.concatenate, shuffled).repeat().batch(batch_size)
    everything = tf.constant(images[..., None]), tf.constant(labels)

    def gather(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_batch, labels_of_batch = (tf.gather(all_of_them, indices) for all_of_them in everything)
        return tf.cast(of_batch, tf.float32) / 255, labels_of_batch

    pairs = order.map(gather)
    if not varied:
        return pairs.prefetch(tf.data.AUTOTUNE)

    def vary(pair: tuple[tf.Tensor, tf.Tensor], count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # a seed a batch, so that the maps may run side by side and still give the same images every time
        of_batch = tf.stack([tf.cast(count, tf.int32), seed])
        late = tf.clip_by_value(3 * tf.cast(count, tf.float32) / steps - 2, 0, 1) if steps else 0.0
        less = 1 - (1 - LAST_VARIED) * late
        return augment(pair[0], of_batch, **{name: less * much for name, much in varied.items()}), pair[1]

    return (
        tf.data.Dataset.zip(pairs, tf.data.Dataset.counter())
        .map(vary, tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def augment(
    images: tf.Tensor,
    seed: tf.Tensor,
    *,
    rotation: float,
    shear: float,
    zoom: float,
    shift: float,
    stroke_width: float,
    blur: float,
) -> tf.Tensor:
    """A varied batch, float32 (n, 28, 28, 1) in [0, 1] like `images`; the same seed, int32 (2,), varies alike.

    rotation: at most so many degrees. shear: at most so many pixels sideways for each down. zoom: width and
    height change at most by this share. shift: at most so many pixels. stroke_width: the share of images whose
    strokes are made thicker or thinner. blur: the share of images blurred, as a picture of few pixels is when
    enlarged.
    """
    n = tf.shape(images)[0]
    turn, slant, wide, high, right, down = tf.unstack(tf.random.stateless_uniform((6, n), seed, -1.0, 1.0))
    turn, slant = turn * (rotation * math.pi / 180), slant * shear
    wide, high = 1 + wide * zoom, 1 + high * zoom
    # each output pixel's place in the input: turned and slanted about the middle, then moved
    a, b = tf.cos(turn) * wide, (tf.cos(turn) * slant - tf.sin(turn)) * high
    c, d = tf.sin(turn) * wide, (tf.sin(turn) * slant + tf.cos(turn)) * high
    x, y = 13.5 * (1 - a - b) + right * shift, 13.5 * (1 - c - d) + down * shift
    images = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, x, c, d, y, tf.zeros_like(a), tf.zeros_like(a)], axis=1),
        output_shape=[28, 28],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )
    # a share of the way to the brightest, or darkest, of the neighbours
    chance, share = tf.unstack(tf.random.stateless_uniform((2, n, 1, 1, 1), seed + 1))
    thick = tf.nn.max_pool2d(images, 3, 1, "SAME")
    thin = -tf.nn.max_pool2d(-images, 3, 1, "SAME")
    thicker = images + (thick - images) * share
    thinner = images + (thin - images) * share * 0.7
    images = tf.where(
        chance < stroke_width / 2, thicker, tf.where(chance < stroke_width * 0.8, thinner, images)
    )
    chance, share = tf.unstack(tf.random.stateless_uniform((2, n, 1, 1, 1), seed + 2))
    blurred = images + (tf.nn.avg_pool2d(images, 3, 1, "SAME") - images) * share
    return tf.where(chance < blur, blurred, images)


def low_resolution(images: np.ndarray, seed: int) -> np.ndarray:
    """Digits as a picture of few pixels shows them to the service; uint8 (n, 28, 28) like `images`.

    Each is seen 7 to 16 pixels high, squeezed or stretched a little, enlarged smoothly as whoever sends it would,
    and prepared as the service prepares pictures. Raises ValueError for an image without ink.
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
        file = BytesIO()
        ImageOps.expand(large, 8).save(file, "BMP")
        seen[i] = prepare([file.getvalue()], ["image"])[0]
    return seen
