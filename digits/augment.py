"""Training images varied at random, so that the network meets more hands than MNIST's five hundred: turned,
slanted, scaled, moved, written with a thicker or thinner pen, seen less sharply. train.py maps it over its
batches."""

from __future__ import annotations

import math

import tensorflow as tf


def augment(
    images: tf.Tensor,
    seed: tf.Tensor,
    rotation: float,
    shear: float,
    zoom: float,
    shift: float,
    pen: float,
    soft: float,
) -> tf.Tensor:
    """A varied batch, float32 (n, 28, 28, 1) in [0, 1] like `images`; the same seed, int32 (2,), varies alike.

    rotation: at most so many degrees. shear: at most so many pixels sideways for each down. zoom: width and
    height change at most by this share. shift: at most so many pixels. pen: the share of images whose strokes
    are made thicker or thinner. soft: the share of images blurred, as a picture of few pixels is when enlarged.
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
    images = tf.where(chance < pen / 2, thicker, tf.where(chance < pen * 0.8, thinner, images))
    chance, share = tf.unstack(tf.random.stateless_uniform((2, n, 1, 1, 1), seed + 2))
    blurred = images + (tf.nn.avg_pool2d(images, 3, 1, "SAME") - images) * share
    return tf.where(chance < soft, blurred, images)
