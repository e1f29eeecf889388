"""Data augmentation, because the service sees more kinds of handwriting than that of MNIST's five hundred
writers. In the `batches` of a run, `augment` varies every image at random: it rotates, shears, scales, shifts and
blurs images, and changes their stroke width."""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
import tensorflow as tf

# the strength of augmentation at the end of a run, relative to its beginning
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

    images: uint8 (n, 28, 28). labels: float32 (n, OUTPUTS). varied: the keyword arguments of `augment`; None for
    no augmentation. steps: the number of batches in the run; in the last third of them augmentation gets weaker,
    so that training ends with images close to MNIST's own. alternating: this number of images at the end is
    divided into `sets`; each epoch uses the next set and all other images. The batches only depend on the seed.
    """
    fixed = len(images) - alternating
    # shuffling indices and gathering each batch at once is faster than moving single images
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
        # each batch has its own seed, so that parallel calls always give the same images
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
    """Vary a batch of images, float32 (n, 28, 28, 1) in [0, 1]. The result only depends on the seed, int32 (2,).

    rotation: maximum in degrees. shear: maximum of pixels sideways per pixel down. zoom: maximum relative change
    of width and height. shift: maximum in pixels. stroke_width: fraction of the images whose strokes are made
    thicker or thinner. blur: fraction of the images that are blurred, like a low-resolution picture after
    enlarging.
    """
    n = tf.shape(images)[0]
    turn, slant, wide, high, right, down = tf.unstack(tf.random.stateless_uniform((6, n), seed, -1.0, 1.0))
    turn, slant = turn * (rotation * math.pi / 180), slant * shear
    wide, high = 1 + wide * zoom, 1 + high * zoom
    # the place of each output pixel in the input: rotated and sheared about the middle, then shifted
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
    # move each pixel a part of the way to its brightest, or darkest, neighbour
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
