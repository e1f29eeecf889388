"""The detector's loss: objectness by the focal loss of CornerNet (Law and Deng 2018), classes by
cross-entropy and boxes by smooth L1, both on the cells that a digit owns."""

from __future__ import annotations

import tensorflow as tf

from digits.training.detector.network import CLASSES, VALUES
from digits.training.detector.targets import ASK, BOX, CLASS, HEAT, WEIGHT

SMOOTHING = 0.02
BOX_WEIGHT = 0.5


def losses(target: tf.Tensor, answer: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The losses of objectness, class and box, each a scalar per digit.

    target: float16 (n, rows, columns, 8) of digits/training/detector/targets.py. answer: the network's output,
    float32 (n, rows, columns / 2, 2 * VALUES).
    """
    target = tf.cast(target, tf.float32)
    answer = tf.reshape(answer, tf.concat([tf.shape(target)[:3], [VALUES]], 0))
    heat, ask, weight = target[..., HEAT], target[..., ASK], target[..., WEIGHT]
    logit = answer[..., 0]
    # log(p) and log(1 - p) without overflow
    yes, no, p = -tf.nn.softplus(-logit), -tf.nn.softplus(logit), tf.sigmoid(logit)
    peak = tf.cast(heat >= 0.999, tf.float32) * ask
    rest = tf.cast(heat < 0.999, tf.float32) * ask
    count = tf.maximum(tf.reduce_sum(peak), 1.0)
    focal = peak * (1 - p) ** 2 * yes + rest * (1 - heat) ** 4 * p**2 * no
    objectness = -tf.reduce_sum(focal) / count
    # only the cells that something owns matter for the rest
    where = tf.where(weight > 0)
    owned, target, weight = (
        tf.gather_nd(answer, where),
        tf.gather_nd(target, where),
        tf.gather_nd(weight, where),
    )
    wanted = tf.one_hot(tf.cast(target[:, CLASS], tf.int32), CLASSES) * (1 - SMOOTHING) + SMOOTHING / CLASSES
    entropy = tf.nn.softmax_cross_entropy_with_logits(wanted, owned[:, 1 : 1 + CLASSES])
    off = tf.abs(owned[:, 1 + CLASSES :] - target[:, BOX : BOX + 4])
    smooth = tf.reduce_sum(tf.where(off < 0.25, 2 * off * off, off - 0.125), -1)
    total = tf.maximum(tf.reduce_sum(weight), 1.0)
    return (
        objectness,
        tf.reduce_sum(entropy * weight) / total,
        BOX_WEIGHT * tf.reduce_sum(smooth * weight) / total,
    )
