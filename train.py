"""Trains the network: the pipeline's `train` stage. Run `dvc repro` (`make train`), which brings the data first,
or `python train.py` once data/digits.npz is there. What it learns by is in params.yaml.

    python train.py --epochs 1 --limit 2000     # a quick look whether all works; ships nothing

Writes models/mnist.h5, its compiled mnist.tflite and the model card mnist.json, and metrics/. All are written
beside their places first and moved there at the end: a run that is stopped or fails leaves the old model whole.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import logging
import logging.config
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

# TensorFlow reads it at import: errors only, no notes on CPU features and missing GPUs
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import yaml
from dvclive import Live
from dvclive.keras import DVCLiveCallback
from PIL import Image, ImageDraw

from digits import logs
from digits.training import data, synthetic
from digits.training.augment import augment, coarse
from digits.training.compile import compile_h5
from digits.training.network import build

ROOT = Path(__file__).resolve().parent
# one trip through Python for so many steps
STEPS_AT_ONCE = 100
log = logging.getLogger("digits.train")


def scaled(images: np.ndarray) -> np.ndarray:
    """uint8 (n, 28, 28), 0..255 -> float32 (n, 28, 28, 1) in [0, 1]."""
    return images[..., None] / np.float32(255)


def batches(images: np.ndarray, labels: np.ndarray, params: dict[str, Any]) -> tf.data.Dataset:
    """Endless shuffled batches of images (n, 28, 28, 1), varied if params["augment"] says how, and one-hot labels
    (n, 10)."""
    seed = params["seed"]
    # numbers are shuffled and a batch is gathered at once: cheaper than moving images one by one
    everything = tf.constant(images), tf.constant(labels)
    order = (
        tf.data.Dataset.range(len(images))
        .shuffle(len(images), seed=seed)
        .repeat()
        .batch(params["batch_size"])
    )
    pairs = order.map(lambda some: tuple(tf.gather(all, some) for all in everything))
    if not params["augment"]:
        return pairs.prefetch(tf.data.AUTOTUNE)
    # a seed a batch, so that the maps may run side by side and still give the same images every time
    seeds = tf.data.Dataset.counter().map(lambda count: tf.stack([tf.cast(count, tf.int32), seed]))

    def vary(pair: tuple[tf.Tensor, tf.Tensor], seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return augment(pair[0], seed, **params["augment"]), pair[1]

    return (
        tf.data.Dataset.zip(pairs, seeds)
        .map(vary, tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


class LogEpochs(keras.callbacks.Callback):
    """A log line an epoch, where no terminal shows Keras's progress bar."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Log the epoch's figures."""
        log.info("epoch", extra={"epoch": epoch + 1} | {k: round(v, 5) for k, v in (logs or {}).items()})


def fit(arrays: data.Arrays, params: dict[str, Any], live: Live) -> tuple[keras.Model, dict[str, float]]:
    """Train on `arrays` and return the network and its validation figures."""
    # the same run gives the same bytes on the same machine
    keras.utils.set_random_seed(params["seed"])
    tf.config.experimental.enable_op_determinism()

    order = np.random.default_rng(params["seed"]).permutation(len(arrays["x_train"]))
    held, kept = order[: params["validation"]], order[params["validation"] :]
    drawn = synthetic.draw(round(params["drawn"] * len(kept)), 0, params["seed"])
    # they are in random order, so the first are any
    seen = kept[: round(params["coarse"] * len(kept))]
    images = scaled(
        np.concatenate(
            [arrays["x_train"][kept], drawn["x_train"], coarse(arrays["x_train"][seen], params["seed"])]
        )
    )
    labels = keras.utils.to_categorical(
        np.concatenate([arrays["y_train"][kept], drawn["y_train"], arrays["y_train"][seen]]), 10
    )
    held_images, held_digits = scaled(arrays["x_train"][held]), arrays["y_train"][held]

    network = build(params["filters"], params["dense"], params["dropout"])
    steps = -(-len(images) // params["batch_size"])
    warmup = round(steps * params["epochs"] * params["warmup"])
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps * params["epochs"] - warmup,
        warmup_target=params["learning_rate"],
        warmup_steps=warmup,
    )
    network.compile(
        keras.optimizers.Adam(rate),
        keras.losses.CategoricalCrossentropy(label_smoothing=params["label_smoothing"]),
        metrics=["accuracy"],
        steps_per_execution=min(steps, STEPS_AT_ONCE),
    )
    terminal = sys.stdout.isatty()
    network.fit(
        batches(images, labels, params),
        steps_per_epoch=steps,
        # the batches come shuffled; Keras would only warn that it can't
        shuffle=False,
        epochs=params["epochs"],
        validation_data=(held_images, keras.utils.to_categorical(held_digits, 10)),
        validation_batch_size=500,
        callbacks=[DVCLiveCallback(live=live)] + ([] if terminal else [LogEpochs()]),
        verbose=1 if terminal else 0,
    )
    calibrate(network, held_images, held_digits)
    figures, _ = measure(network, held_images, held_digits)
    return network, figures


def calibrate(network: keras.Model, images: np.ndarray, digits: np.ndarray) -> None:
    """Make the probabilities mean what they say: on held-out images, those called 90 % are right in 90 %.

    Label smoothing and augmentation leave a network too modest. One number, the temperature that the scores are
    divided by, sets that right and changes no answer (Guo et al. 2017, arXiv:1706.04599); it goes into the last
    layer's weights.
    """
    scores = np.log(np.maximum(network.predict(images, batch_size=500, verbose=0), 1e-12))

    def loss(temperature: float) -> float:
        divided = scores / temperature
        right = divided[np.arange(len(divided)), digits]
        return float((np.log(np.exp(divided).sum(1)) - right).mean())

    temperature = min(np.geomspace(0.2, 5, 400), key=loss)
    last = network.layers[-1]
    last.set_weights([weights / np.float32(temperature) for weights in last.get_weights()])


def measure(
    network: keras.Model, images: np.ndarray, digits: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """Cross-entropy and accuracy on images (n, 28, 28, 1) of these digits (n,), and the digit found for each."""
    probabilities = network.predict(images, batch_size=500, verbose=0)
    right = probabilities[np.arange(len(probabilities)), digits]
    found = probabilities.argmax(1)
    loss = float(-np.log(np.maximum(right, 1e-7)).mean())
    return {"loss": loss, "accuracy": float((found == digits).mean())}, found


def draw_misclassified(arrays: data.Arrays, found: np.ndarray) -> Image.Image:
    """The test images that were read wrongly (100 at most), each under "what it is > what was said"."""
    wrong = np.flatnonzero(found != arrays["y_test"])[:100]
    rows = max(1, -(-len(wrong) // 10))
    picture = Image.new("L", (10 * 64, rows * 80), 255)
    pen = ImageDraw.Draw(picture)
    for place, i in enumerate(wrong):
        x, y = place % 10 * 64, place // 10 * 80
        pen.text((x + 18, y + 2), f"{arrays['y_test'][i]} > {found[i]}", fill=0)
        picture.paste(Image.fromarray(255 - arrays["x_test"][i]).resize((56, 56)), (x + 4, y + 18))
    return picture


def card(folder: Path, **facts: Any) -> dict[str, Any]:
    """The model card: what the files in `folder` are, and where they come from."""
    h5, tflite = (
        hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("mnist.h5", "mnist.tflite")
    )
    libraries = ("tensorflow", "keras", "numpy", "h5py")
    return {
        "name": "mnist",
        "version": h5[:12],
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "h5_sha256": h5,
        "tflite_sha256": tflite,
        "git_revision": revision(),
        "libraries": {"python": platform.python_version()} | {name: version(name) for name in libraries},
        **facts,
    }


def revision() -> str | None:
    """The git commit of the code that trained, "-dirty" behind it if the code differs; None outside git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    commit = git("rev-parse", "HEAD")
    # dvc.lock changes while the pipeline runs; what counts is what trains
    changed = git("status", "--porcelain", "--", "train.py", "params.yaml", "digits")
    return (commit + ("-dirty" if changed else "")) or None


def main() -> None:
    """Train, test once, write the model and what is known about it."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    parser = argparse.ArgumentParser(description="Train the network on data/digits.npz.")
    parser.add_argument("--epochs", type=int, help="fewer epochs, for a quick look")
    parser.add_argument("--limit", type=int, help="fewer images, for a quick look")
    parser.add_argument("--seed", type=int, help="another seed than params.yaml's")
    parser.add_argument("--out", type=Path, help="write models/ and metrics/ there")
    args = parser.parse_args()
    own = {name: value for name in ("epochs", "seed") if (value := getattr(args, name)) is not None}
    out = args.out or (ROOT / "tmp" / "train" if own or args.limit else ROOT)
    train_params = params["train"] | own
    logging.config.dictConfig(logs.config("info"))
    logging.getLogger("absl").setLevel(logging.ERROR)

    try:
        arrays = data.load()
    except FileNotFoundError:
        sys.exit(f"{data.CANONICAL} is missing: run `dvc repro`, or python -m digits.training.data")
    data_sha256 = hashlib.sha256(data.CANONICAL.read_bytes()).hexdigest()
    trained_on = (
        "mnist" if data.idx_sha256(arrays["x_train"]) == data.MNIST_SHA256["x_train"] else "synthetic"
    )
    if args.limit:
        arrays = {name: array[: args.limit] for name, array in arrays.items()}
        trained_on += f", {args.limit} images"
        train_params = train_params | {"validation": min(train_params["validation"], args.limit // 5)}

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".train-", dir=out) as beside:
        new = Path(beside)
        live = Live(str(new / "metrics"), dvcyaml=None, save_dvc_exp=False)
        network, validation = fit(arrays, train_params, live)
        test_figures, found = measure(network, scaled(arrays["x_test"]), arrays["y_test"])
        live.summary["test"] = test_figures
        live.make_summary()
        plots = new / "metrics" / "plots"
        pairs = zip(arrays["y_test"], found, strict=True)
        (plots / "confusion.csv").write_text("actual,predicted\n" + "".join(f"{a},{f}\n" for a, f in pairs))
        draw_misclassified(arrays, found).save(plots / "misclassified.png")

        (new / "models").mkdir()
        network.save(new / "models" / "mnist.h5", include_optimizer=False)
        (new / "models" / "mnist.tflite").write_bytes(compile_h5(new / "models" / "mnist.h5"))
        confusion = np.zeros((10, 10), int)
        np.add.at(confusion, (arrays["y_test"], found), 1)
        facts = card(
            new / "models",
            trained_on=trained_on,
            data_sha256=data_sha256,
            params=train_params,
            parameters=network.count_params(),
            validation=validation,
            test=test_figures,
            confusion_matrix=confusion.tolist(),
        )
        (new / "models" / "mnist.json").write_text(json.dumps(facts, indent=2) + "\n")
        replace(new, out)
    print(f"Test loss: {test_figures['loss']:.4f}")
    print(f"Test accuracy: {test_figures['accuracy']:.4f}")
    if out != ROOT:
        print(f"Written to {out}, not to models/: this run was not the pipeline's.")


def replace(new: Path, out: Path) -> None:
    """Move models/ and metrics/ from `new` into their places in `out`."""
    (out / "models").mkdir(exist_ok=True)
    # the card last: until then it names the old .h5, and a service that starts now waits for the three to fit
    for name in ("mnist.h5", "mnist.tflite", "mnist.json"):
        (new / "models" / name).replace(out / "models" / name)
    shutil.rmtree(out / "metrics", ignore_errors=True)
    (new / "metrics").replace(out / "metrics")


if __name__ == "__main__":
    main()
