"""Compiles the detector for LiteRT: weights as float16, input and output float32, any height and width."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import keras
import tensorflow as tf

from digits.training.detector.network import build


class Doubled(keras.layers.Layer):
    """Doubles height and width by repeating pixels. Unlike UpSampling2D it needs no shape as a tensor, so
    that LiteRT may resize the input."""

    def call(self, x: Any) -> Any:
        """x: (n, h, w, c). Returns (n, 2h, 2w, c)."""
        return tf.nn.depth_to_space(tf.concat([x] * 4, -1), 2)


def compiled(network: keras.Model, params: dict[str, Any]) -> bytes:
    """The network as a .tflite file. params: those of `build`."""
    # LiteRT resizes the input, but an unknown size would be worked out at every run
    twin = build(params, upsample=Doubled, size=(64, 64), batch=1)
    twin.set_weights(network.get_weights())
    converter = tf.lite.TFLiteConverter.from_keras_model(twin)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    # the converter prints what it has found
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return bytes(converter.convert())
