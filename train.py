"""Trains the network: the pipeline's `train` stage. Run `make train`, which makes what is missing before, or
`python train.py` if data/digits.npz, data/images.npz and data/corrections.npz exist. The parameters are in
params.yaml. It writes models/mnist.h5, and metrics/training.csv and training.json, which describe the run. The
files are moved into place at the end, so that a run that is stopped or fails keeps the old model."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

# TensorFlow reads this when it is imported; only log errors, not CPU features and missing GPUs
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from digits.training.arrays import IMAGES, Arrays, read, read_both, sha256
from digits.training.augment import batches
from digits.training.corrected import CORRECTIONS
from digits.training.network import NO_DIGIT, OUTPUTS, build, fold, folded, momentum, normalize
from digits.training.stage import ROOT, StageError, outputs, read_params, run

# the number of steps before Keras returns to Python, which would slow down batches of 32
STEPS_PER_CALL = 100
# images at a time when the network only answers
PREDICTED = 500
ONE_HOT = np.eye(OUTPUTS, dtype=np.float32)
LIBRARIES = ("keras", "numpy", "h5py")

# the figures of each epoch by name: accuracy, loss, and with val_ those on the images that are held out
Curves = dict[str, list[float]]


@dataclass(frozen=True)
class Augment:
    """The arguments of `augment` in digits/training/augment.py."""

    rotation: float
    shear: float
    zoom: float
    shift: float
    stroke_width: float
    blur: float


@dataclass(frozen=True)
class Params:
    """`train` in params.yaml, where each key is explained."""

    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    label_smoothing: float
    ema_momentum: float
    filters: list[int]
    dense: list[int]
    dropout: list[float]
    corrections: int
    augment: Augment


def fit(
    arrays: Arrays, made: Arrays, corrected: Arrays, sets: int, params: Params, start: Path | None = None
) -> tuple[keras.Sequential, Curves]:
    """Train a network with OUTPUTS outputs. Returns it, and the loss and accuracy of each epoch.

    arrays, made, corrected: the contents of data/digits.npz, data/images.npz and data/corrections.npz. sets: the
    number of sets into which the outliers are divided. start: an .h5 of this network, with whose weights to begin.
    """
    # repeated runs give the same bytes on the same machine
    keras.utils.set_random_seed(params.seed)
    tf.config.experimental.enable_op_determinism()

    x, y = arrays["x_train"], arrays["y_train"]
    outliers = made["outliers"]
    # one that is shown several times in an epoch is varied differently each time
    said = {
        name: np.repeat(corrected[name][~corrected["held_out"]], params.corrections, axis=0)
        for name in ("images", "labels")
    }
    images = np.concatenate([x[made["training"]], made["digits"], said["images"], outliers])
    no_digits = np.full(len(outliers), NO_DIGIT)
    digits = [y[made["training"]], made["digit_labels"], said["labels"], no_digits]
    labels = ONE_HOT[np.concatenate(digits)]
    held_out = np.concatenate([made["calibration"], made["validation"]])

    # each epoch uses all digits and one set of outliers
    steps = -(-(len(images) - len(outliers) + len(outliers) // sets) // params.batch_size)
    total = steps * params.epochs
    warmup = round(total * params.warmup)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, total - warmup, warmup_target=params.learning_rate, warmup_steps=warmup
    )
    network = build(params.filters, params.dense, params.dropout, momentum(total))
    if start:
        load_weights(network, start)
    network.compile(
        # the saved weights are a moving average, which is steadier than the last weights
        keras.optimizers.Adam(rate, use_ema=True, ema_momentum=momentum(total, params.ema_momentum)),
        keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing),
        metrics=["accuracy"],
        steps_per_execution=min(steps, STEPS_PER_CALL),
    )
    varied = asdict(params.augment)
    history = network.fit(
        batches(images, labels, params.batch_size, params.seed, varied, total, len(outliers), sets),
        steps_per_epoch=steps,
        # the batches are already shuffled, and Keras would warn that it can't shuffle them
        shuffle=False,
        epochs=params.epochs,
        validation_data=(normalize(x[held_out]), ONE_HOT[y[held_out]]),
        validation_batch_size=PREDICTED,
        # a progress bar on a terminal, and a line for each epoch elsewhere
        verbose=1 if sys.stdout.isatty() else 2,
    )
    return network, history.history


def load_weights(network: keras.Sequential, path: Path) -> None:
    """Give a network the weights of the one in an .h5 that `main` has written. Raises StageError if it is another
    network's."""
    try:
        # it shares the layers of `network`; weights alone contain no code
        fold(network).load_weights(path)
    except (ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise StageError(f"{path} is not an .h5 of the network in params.yaml: {reason}") from None


def calibrate(network: keras.Sequential, images: np.ndarray, labels: np.ndarray) -> float:
    """Calibrate the probabilities, so that 90 % of the answers with a probability of 90 % are correct. Returns the
    temperature.

    network: as trained, with all outputs. images: held-out digits, uint8 (n, 28, 28). labels: their digits, (n,).

    After training with label smoothing and augmentation, a network's probabilities are too low. Dividing the
    scores by one number, the temperature, corrects this (Guo et al. 2017, arXiv:1706.04599). The last weights are
    divided by it.
    """
    predicted = network.predict(normalize(images), batch_size=PREDICTED, verbose=0)
    scores = np.log(np.maximum(predicted, 1e-12))

    def loss(temperature: float) -> float:
        served = folded(scores / temperature)
        return float(-np.log(np.maximum(served[np.arange(len(served)), labels], 1e-12)).mean())

    temperature = min(np.geomspace(0.2, 5, 400), key=loss)
    last = network.layers[-2]
    last.set_weights([weights / np.float32(temperature) for weights in last.get_weights()])
    return float(temperature)


def write_curves(curves: Curves, path: Path) -> None:
    """Write a CSV file with a line for each epoch, counted from 1."""
    rows = [["epoch", *curves]]
    for epoch, figures in enumerate(zip(*curves.values(), strict=True), 1):
        rows.append([str(epoch), *(f"{figure:.6f}" for figure in figures)])
    path.write_text("".join(",".join(row) + "\n" for row in rows))


def main() -> None:
    """Train the network, and write its files."""
    params = read_params("train", Params)
    parser = argparse.ArgumentParser(description="Train the network.")
    parser.add_argument(
        "--epochs", type=int, default=params.epochs, help="replaces the number in params.yaml"
    )
    parser.add_argument("--seed", type=int, default=params.seed, help="replaces the seed in params.yaml")
    parser.add_argument(
        "--learning-rate", type=float, default=params.learning_rate, help="replaces the one in params.yaml"
    )
    parser.add_argument("--start", type=Path, help="an .h5 of this network, with whose weights to begin")
    parser.add_argument("--images", type=Path, default=IMAGES.path, help="a file like data/images.npz")
    parser.add_argument(
        "--corrections", type=Path, default=CORRECTIONS.path, help="a file like data/corrections.npz"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for models/ and metrics/, by default tmp/train if another option is given",
    )
    args = parser.parse_args()
    changed = replace(params, epochs=args.epochs, seed=args.seed, learning_rate=args.learning_rate)
    if min(changed.epochs, changed.batch_size) < 1:
        raise StageError("params.yaml: train.epochs and train.batch_size must be at least 1.")
    if params.corrections < 0:
        raise StageError("params.yaml: train.corrections must be at least 0.")
    files = args.images, args.corrections
    own = changed != params or files != (IMAGES.path, CORRECTIONS.path) or args.start
    out, params = args.out or (ROOT / "tmp" / "train" if own else ROOT), changed
    # Keras advises its own format
    logging.getLogger("absl").setLevel(logging.ERROR)

    arrays, made, facts = read_both(args.images)
    corrected = read(CORRECTIONS, args.corrections)
    described = {"images": facts["params"], "train": asdict(params)}
    if len(corrected["labels"]):
        held_out = int(corrected["held_out"].sum())
        described["corrections"] = {
            "sha256": sha256(args.corrections),
            "images": len(corrected["labels"]) - held_out,
            "held_out": held_out,
        }
    if args.start:
        described["start"] = sha256(args.start)[:12]
    sets = facts["params"]["outliers"]["sets"]
    with outputs(out, "metrics/training.csv", "metrics/training.json", "models/mnist.h5") as new:
        network, curves = fit(arrays, made, corrected, sets, params, args.start)
        write_curves(curves, new / "metrics" / "training.csv")
        calibration = made["calibration"]
        temperature = calibrate(network, arrays["x_train"][calibration], arrays["y_train"][calibration])
        fold(network).save(new / "models" / "mnist.h5", include_optimizer=False)
        libraries = {"python": platform.python_version(), "tensorflow": tf.__version__}
        about = {
            "h5_sha256": sha256(new / "models" / "mnist.h5"),
            "data_sha256": facts["data_sha256"],
            "images_sha256": sha256(args.images),
            "libraries": libraries | {name: version(name) for name in LIBRARIES},
            "params": described,
            "parameters": network.count_params(),
            "temperature": temperature,
        }
        (new / "metrics" / "training.json").write_text(json.dumps(about, indent=2) + "\n")
    print(f"The network is in {out / 'models' / 'mnist.h5'}.")


if __name__ == "__main__":
    run(main)
