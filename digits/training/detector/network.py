"""The detector's network: fully convolutional, for each cell of 4x4 pixels two sub-cells with an objectness,
a class and a box each.

Input: float32 (n, h, w, 1) as digits/imaging/contrast.py makes it, h and w multiples of 16. Output: float32
(n, h / 4, w / 4, 32), two sub-columns of 16 values: the logit of objectness; the logits of the classes 0 to 9
and mark; dx and dy from the sub-cell's middle in units of 8 pixels; log(width / 16); log(height / 24). A mark
is any character that is no digit: a letter, alone or in a word, or a sign. Scribbles, lines and pictures are
nothing.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

CLASSES = 11
VALUES = 1 + CLASSES + 4


def build(
    params: dict[str, Any],
    upsample: Any = None,
    size: tuple[int | None, int | None] = (None, None),
    batch: int | None = None,
) -> keras.Model:
    """The network. params: `stem`, `fine`, `middle`, `coarse` and `head`, the numbers of channels at a half,
    a fourth, an eighth and a sixteenth of the size, and before the output. upsample: a function that makes a
    layer which doubles height and width. size, batch: of the input, if they are to be fixed."""
    double = upsample or (lambda: layers.UpSampling2D(2))

    def conv(x: Any, channels: int, side: int = 3, stride: int = 1, relu: bool = True) -> Any:
        x = layers.Conv2D(channels, side, stride, "same", use_bias=False, kernel_initializer="he_normal")(x)
        x = layers.BatchNormalization(momentum=0.98)(x)
        return layers.ReLU()(x) if relu else x

    def residual(x: Any, channels: int) -> Any:
        return layers.ReLU()(layers.Add()([x, conv(conv(x, channels), channels, relu=False)]))

    def merged(fine: Any, coarse: Any, channels: int) -> Any:
        up = double()(conv(coarse, channels, 1, relu=False))
        side = fine if fine.shape[-1] == channels else conv(fine, channels, 1, relu=False)
        return layers.ReLU()(layers.Add()([side, up]))

    picture = keras.Input((*size, 1), batch_size=batch, name="picture")
    x = conv(picture, params["stem"], 5, 2)
    fine = residual(conv(x, params["fine"], 3, 2), params["fine"])
    x = residual(conv(fine, params["middle"], 3, 2), params["middle"])
    middle = residual(x, params["middle"])
    coarse = residual(conv(middle, params["coarse"], 3, 2), params["coarse"])
    x = merged(middle, coarse, params["middle"])
    x = residual(merged(fine, x, params["head"]), params["head"])
    # objectness begins at .02, as most cells are empty
    bias = keras.initializers.Constant(([-4.0] + [0.0] * (VALUES - 1)) * 2)
    answer = layers.Conv2D(2 * VALUES, 1, bias_initializer=bias, dtype="float32", name="answer")(x)
    return keras.Model(picture, answer, name="detector")
