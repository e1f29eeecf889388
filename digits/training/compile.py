"""The pipeline's `compile` stage: `python -m digits.training.compile IN.h5 [OUT.tflite]` compiles an .h5 for
serving, by default to the place where the service looks for the compiled form of an .h5 without a model card.

An .h5 can contain code (Lambda layers, custom classes; CVE-2025-9905: Keras ignores safe_mode for HDF5), so its
configuration is checked before Keras reads it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from digits.model import cache_of
from digits.training.arrays import sha256
from digits.training.stage import StageError, outputs, run

# the classes that a configuration may use. They don't run code from the file, open other files or use the network,
# unlike Lambda, TFSMLayer, TorchModuleWrapper, StringLookup, and functions and classes of other modules
CLASSES = frozenset(
    """
    Sequential Functional Model InputLayer __keras_tensor__ DTypePolicy
    Conv2D SeparableConv2D DepthwiseConv2D Conv2DTranspose Dense EinsumDense
    Conv1D SeparableConv1D DepthwiseConv1D Embedding
    MaxPooling1D MaxPooling2D AveragePooling1D AveragePooling2D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalAveragePooling1D GlobalAveragePooling2D
    BatchNormalization LayerNormalization GroupNormalization RMSNormalization UnitNormalization Normalization
    Rescaling Activation ReLU LeakyReLU PReLU ELU Softmax Identity
    Dropout SpatialDropout1D SpatialDropout2D AlphaDropout GaussianDropout GaussianNoise
    Flatten Reshape Permute RepeatVector ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D UpSampling2D
    TimeDistributed Bidirectional ActivityRegularization
    Add Subtract Multiply Average Maximum Minimum Concatenate Dot
    RandomFlip RandomRotation RandomTranslation RandomZoom RandomContrast RandomBrightness RandomShear
    Attention MultiHeadAttention SimpleRNN LSTM GRU
    Constant GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Ones Orthogonal
    OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
    L1 L1L2 L2 OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg UnitNorm
    """.split()  # noqa: SIM905
)
PARTS = ("layers", "models", "initializers", "regularizers", "constraints")
MODULES = frozenset([None, "keras", *(f"keras.{part}" for part in PARTS)])
# of all weights; even a small file can declare any number of them
MAX_BYTES = 1 << 30


class CompileError(StageError):
    """The .h5 can't be compiled. The message says why."""


def check(path: Path) -> None:
    """Raise CompileError unless `path` is an .h5 model that only consists of known Keras layers, contains no
    code, and does not refer to other files."""
    if not path.exists():
        raise CompileError(f"{path} does not exist. Train a network first.")
    parts: list[dict[str, Any]] = []

    def keep(part: dict[str, Any]) -> dict[str, Any]:
        if "class_name" in part:
            parts.append(part)
        return part

    try:
        with h5py.File(path, "r") as file:
            if "model_config" not in file.attrs:
                raise CompileError(
                    f"{path} contains no model, only weights. Save the whole model with model.save."
                )
            json.loads(file.attrs["model_config"], object_hook=keep)
            _check_data(file, path)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise CompileError(
            f"{path} is not a model that Keras saved as HDF5: {reason}. Train again, or save it with model.save."
        ) from None
    for part in parts:
        name, module, registered = part["class_name"], part.get("module"), part.get("registered_name")
        if name in ("Lambda", "__lambda__"):
            raise CompileError(f"{path} has a Lambda layer, which would run code from the file.")
        known = isinstance(name, str) and name in CLASSES and module in MODULES
        if not known or registered not in (None, name):
            described = ".".join(str(word)[:40] for word in (module, registered or name) if word)
            raise CompileError(f"{path} has a part that is not on the list of safe ones: {described}")
        dtype = str(part["config"].get("dtype")) if isinstance(part.get("config"), dict) else ""
        if "float16" in dtype:
            raise CompileError(f"{path} uses 16-bit floats, which are not supported. Save it with float32.")


def _check_data(file: h5py.File, path: Path) -> None:
    """Raise CompileError for weights in other files, or for too many weights."""
    data = []

    # h5py stops at a name that is returned, and can't pass exceptions on
    def elsewhere(name: str, item: Any) -> str | None:
        if isinstance(item, h5py.Dataset):
            data.append(item.size * item.dtype.itemsize)
            return name if item.external or item.is_virtual else None
        return name if isinstance(item, h5py.SoftLink | h5py.ExternalLink) else None

    found = file.visititems_links(elsewhere) or file.visititems(elsewhere)
    if found:
        raise CompileError(f"{path} refers to another place: {found.rpartition('/')[2][:40]}")
    total = sum(data)
    if total > MAX_BYTES:
        raise CompileError(f"{path} declares {total} bytes of weights, but at most {MAX_BYTES} are allowed.")


def compile_h5(path: Path) -> bytes:
    """Compile an .h5, float32 (n, 28, 28, 1) -> float32 (n, 10), to the bytes of a .tflite. Raises
    CompileError."""
    network = read_network(path)
    # Keras was imported to read it
    import keras

    shapes = network.input_shape, network.output_shape
    if shapes != ((None, 28, 28, 1), (None, 10)):
        raise CompileError(
            f"{path} has shapes {shapes[0]} -> {shapes[1]}, but must have (None, 28, 28, 1) -> (None, 10)."
        )
    sums = np.asarray(network(np.random.default_rng(1).random((4, 28, 28, 1), np.float32))).sum(1)
    linear = getattr(network.layers[-1], "activation", None) is keras.activations.linear
    if linear and not np.allclose(sums, 1, atol=1e-3):
        # a model that was trained with from_logits
        network = keras.Sequential([network, keras.layers.Softmax()])
    return convert(network, path)


def read_network(path: Path) -> Any:
    """The Keras network in an .h5. Raises CompileError if the file fails `check` or can't be loaded."""
    check(path)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        # some errors have no message, and some begin with the whole configuration of a layer
        message = str(error).rpartition("Exception encountered: ")[2].partition("\n")[0]
        reason = message or type(error).__name__
        raise CompileError(f"{path} can't be loaded by this version of Keras: {reason}") from None


def convert(network: Any, path: Path) -> bytes:
    """A Keras network as the bytes of a .tflite. path: the file that it was read from. Raises CompileError if
    LiteRT can't run it, and OSError if the disk is full."""
    import tensorflow as tf

    # the converter writes temporary files, and on a full disk would fail as if it did not know a layer
    with tempfile.TemporaryFile() as file:
        file.write(bytes(4 * path.stat().st_size))
    try:
        # the converter prints to standard output, which belongs to the caller
        with redirect_stdout(StringIO()):
            return tf.lite.TFLiteConverter.from_keras_model(network).convert()
    except Exception:
        layers = ", ".join(sorted({type(layer).__name__ for layer in network.layers}))
        raise CompileError(
            f"{path} can't be compiled: LiteRT lacks an operation that one of these layers needs: {layers}. "
            "Recurrent layers need unroll=True."
        ) from None


def main() -> None:
    """Compile the file that the command line names, to the place where the service looks for it."""
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m digits.training.compile IN.h5 [OUT.tflite]")
    path, outs = Path(sys.argv[1]), [Path(out) for out in sys.argv[2:]]
    compiled = compile_h5(path)
    if not outs or outs[0].parent == path.parent:
        outs.append(cache_of(path, sha256(path)))
    for out in outs:
        with outputs(out.parent, out.name) as new:
            (new / out.name).write_bytes(compiled)


if __name__ == "__main__":
    run(main)
