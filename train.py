"""Trains the network; this is the pipeline's `train` stage. Run `dvc repro` (`make train`), which gets the data
first, or `python train.py` if data/digits.npz exists. The parameters are in params.yaml.

    python train.py --epochs 1 --limit 2000     # a quick check that everything works, which doesn't change models/

It writes models/mnist.h5, the compiled mnist.tflite, the model card mnist.json, and metrics/. The files are moved
into place at the end, so that a run that is stopped or fails keeps the old model.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import logging.config
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# TensorFlow reads this when it is imported; only log errors, not CPU features and missing GPUs
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import yaml
from dvclive import Live
from dvclive.keras import DVCLiveCallback

from digits import logs
from digits.training import data, outliers, tracking
from digits.training.augment import batches
from digits.training.card import replace, revision, write_card
from digits.training.compile import compile_h5
from digits.training.evaluate import (
    calibrate,
    confusion_matrix,
    evaluate,
    evaluate_outliers,
    predict,
    reliability,
    sure_threshold,
)
from digits.training.network import build, fold, momentum, normalize
from digits.training.plots import write_plots, write_reliability
from digits.training.sources import ONE_HOT, sources

ROOT = Path(__file__).resolve().parent
# the number of steps before Keras returns to Python, which would slow down batches of 32
STEPS_PER_CALL = 100
# one image each for training, calibration and validation
MIN_LIMIT = 3
# images and labels
Pair = tuple[np.ndarray, np.ndarray]
log = logging.getLogger("digits.train")


def fit(x: np.ndarray, y: np.ndarray, held_out: Pair, params: dict[str, Any], live: Live) -> keras.Sequential:
    """Train a network with OUTPUTS outputs.

    x, y: training images, uint8 (n, 28, 28), and their digits, uint8 (n,). held_out: the images for the validation
    curves in `live`.
    """
    # repeated runs give the same bytes on the same machine
    keras.utils.set_random_seed(params["seed"])
    tf.config.experimental.enable_op_determinism()

    images, labels, strange = sources(x, y, params)
    sets = params["outliers"]["sets"]

    steps = -(-(len(images) - strange + strange // sets) // params["batch_size"])
    total = steps * params["epochs"]
    warmup = round(total * params["warmup"])
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, total - warmup, warmup_target=params["learning_rate"], warmup_steps=warmup
    )
    network = build(params["filters"], params["dense"], params["dropout"], momentum(total))
    network.compile(
        # the saved weights are a moving average, which is steadier than the last weights
        keras.optimizers.Adam(rate, use_ema=True, ema_momentum=momentum(total, params["ema_momentum"])),
        keras.losses.CategoricalCrossentropy(label_smoothing=params["label_smoothing"]),
        metrics=["accuracy"],
        steps_per_execution=min(steps, STEPS_PER_CALL),
    )
    network.fit(
        batches(
            images, labels, params["batch_size"], params["seed"], params["augment"], total, strange, sets
        ),
        steps_per_epoch=steps,
        # the batches are already shuffled, and Keras would warn that it can't shuffle them
        shuffle=False,
        epochs=params["epochs"],
        validation_data=(normalize(held_out[0]), ONE_HOT[held_out[1]]),
        validation_batch_size=500,
        callbacks=[DVCLiveCallback(live=live), keras.callbacks.LambdaCallback(on_epoch_end=log_epoch)],
        # show a progress bar on a terminal
        verbose=1 if sys.stdout.isatty() else 0,
    )
    return network


def settle(
    network: keras.Sequential, x: np.ndarray, y: np.ndarray, params: dict[str, Any]
) -> tuple[keras.Model, float]:
    """Fit the temperature to held-out digits `x`, `y`. Returns the network to serve, and the threshold of sure
    answers, which is determined with these digits and with outliers made from them."""
    calibrate(network, normalize(x), y)
    served = fold(network)
    strange = outliers.held_out(x, y, params, params["seed"] + 1)
    probabilities = [predict(served, normalize(images)).max(1) for images in (x, *strange.values())]
    return served, sure_threshold(probabilities[0], np.concatenate([[], *probabilities[1:]]), params["sure"])


def log_epoch(epoch: int, figures: dict[str, float]) -> None:
    """Log the loss and accuracy of an epoch, unless Keras shows its progress bar on a terminal."""
    if not sys.stdout.isatty():
        rounded = {name: round(figure, 5) for name, figure in figures.items()}
        log.info("epoch", extra={"epoch": epoch + 1, **rounded})


def main() -> None:
    """Train and evaluate the network, and write its files."""
    parser = argparse.ArgumentParser(description="Train the network on data/digits.npz.")
    parser.add_argument("--epochs", type=int, help="number of epochs, for a quick check")
    parser.add_argument("--limit", type=int, help="number of training images, for a quick check")
    parser.add_argument("--seed", type=int, help="replaces the seed in params.yaml")
    parser.add_argument("--out", type=Path, help="folder for models/ and metrics/")
    args = parser.parse_args()
    if args.limit is not None and args.limit < MIN_LIMIT:
        parser.error(f"--limit must be at least {MIN_LIMIT}")
    own = {name: value for name in ("epochs", "seed") if (value := getattr(args, name)) is not None}
    out = args.out or (ROOT / "tmp" / "train" if own or args.limit else ROOT)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["train"] | own
    logging.config.dictConfig(logs.config("info"))
    logging.getLogger("absl").setLevel(logging.ERROR)

    arrays = data.load()
    trained_on, git_revision = data.origin(arrays), revision()
    if args.limit:
        arrays = {name: array[: args.limit] for name, array in arrays.items()}
        trained_on += f", {args.limit} images"
        params["validation"] = min(params["validation"], max(2, args.limit // 5))

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".train-", dir=out) as temporary:
        new = Path(temporary)
        live = Live(str(new / "metrics"), dvcyaml=None, save_dvc_exp=False)
        x, y = arrays["x_train"], arrays["y_train"]
        train, calibration, val = data.split(
            len(x), params["validation"], params["calibration_fraction"], params["seed"]
        )
        held_out = np.concatenate([calibration, val])
        trained = fit(x[train], y[train], (x[held_out], y[held_out]), params, live)
        network, threshold = settle(trained, x[calibration], y[calibration], params)
        # neither the weights nor the temperature nor the threshold were fitted to these images
        probabilities = predict(network, normalize(x[val]))
        strange = outliers.held_out(x[val], y[val], params, params["seed"] + 2)
        validation = evaluate(probabilities, y[val], threshold) | {
            "outliers": {
                kind: evaluate_outliers(probabilities, predict(network, normalize(images)), threshold)
                for kind, images in strange.items()
            }
        }
        write_reliability(new / "metrics" / "plots", reliability(probabilities, y[val]))
        outliers.contact_sheet(strange).save(new / "metrics" / "plots" / "outliers.png")
        probabilities = predict(network, normalize(arrays["x_test"]))
        predicted = probabilities.argmax(1)
        test = evaluate(probabilities, arrays["y_test"], threshold)
        live.summary |= {"test": test, "validation": validation, "sure_threshold": threshold}
        live.make_summary()
        write_plots(new / "metrics" / "plots", arrays["x_test"], arrays["y_test"], predicted)

        models = new / "models"
        models.mkdir()
        network.save(models / "mnist.h5", include_optimizer=False)
        (models / "mnist.tflite").write_bytes(compile_h5(models / "mnist.h5"))
        write_card(
            models,
            git_revision,
            trained_on=trained_on,
            data_sha256=hashlib.sha256(data.CANONICAL.read_bytes()).hexdigest(),
            params=params,
            parameters=trained.count_params(),
            sure_threshold=threshold,
            validation=validation,
            test=test,
            confusion_matrix=confusion_matrix(arrays["y_test"], predicted).tolist(),
        )
        replace(new, out)
    tracking.log_run(out, register=not args.limit)
    print(f"Test loss: {test['loss']:.4f}")
    print(f"Test accuracy: {test['accuracy']:.4f}")
    if out != ROOT:
        print(
            f"The files are in {out}, and models/ has not changed, because this was not a run of the pipeline."
        )


if __name__ == "__main__":
    try:
        main()
    except data.DataError as error:
        sys.exit(str(error))
