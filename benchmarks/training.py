"""Compares training with other frameworks: the seconds per epoch and until 99 % of the test images are correct,
with the same network and images. `make bench-train` calls it. It runs each contender in a separate process (and
in a separate environment in .bench/ if it needs one), prints the table and writes benchmarks/training.json. MNIST
is in data/digits.npz, which `dvc repro data` creates.

All contenders train without data augmentation and with a constant learning rate, except "as shipped".
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

BATCH = 32
OURS, FIT, TORCH = "train.py without augmentation", "Keras fit on NumPy arrays", "PyTorch, eager"
# name: (the environment in benchmarks/peers, or None for the current one; the argument of `learn`)
CONTENDERS = {
    OURS: (None, "ours"),
    "train.py as shipped, with data augmentation": (None, "shipped"),
    FIT: (None, "fit"),
    TORCH: ("torch", "torch"),
    "JAX, jit": ("jax", "jax"),
}


def learn(way: str, epochs: int) -> None:
    """Train, and print the seconds and test accuracy of each epoch and the versions of libraries as JSON."""
    with np.load(ROOT / "data" / "digits.npz") as file:
        arrays = {name: file[name] for name in file.files}
    if way in ("torch", "jax"):
        sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))
        told = __import__(f"train_{way}").learn(arrays, epochs, BATCH)
    else:
        told = learn_keras(way, epochs, arrays)
    print(json.dumps(told))


def learn_keras(way: str, epochs: int, arrays: dict[str, np.ndarray]) -> dict:
    """Train with Keras's `fit` as in its introduction, or with the batches, seeds and determinism of train.py."""
    import keras
    import tensorflow as tf
    import yaml

    import train
    from digits.training.augment import batches
    from digits.training.network import OUTPUTS, build, normalize

    params = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
    images, labels = normalize(arrays["x_train"]), keras.utils.to_categorical(arrays["y_train"], OUTPUTS)
    test, digits = normalize(arrays["x_test"]), arrays["y_test"]
    keras.utils.set_random_seed(params["seed"])
    if way != "fit":
        tf.config.experimental.enable_op_determinism()
    network = build(params["filters"], params["dense"], params["dropout"])
    seconds: list[float] = []
    right: list[float] = []

    class Clock(keras.callbacks.Callback):
        """Measures the time of each epoch, without the time between two epochs."""

        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            self.begun = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            seconds.append(time.perf_counter() - self.begun)
            predicted = network.predict(test, batch_size=train.PREDICTED, verbose=0)
            right.append(float((predicted.argmax(1) == digits).mean()))

    network.compile(
        keras.optimizers.Adam(1e-3),
        "categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=1 if way == "fit" else train.STEPS_PER_CALL,
    )
    every = {"epochs": epochs, "verbose": 0, "callbacks": [Clock()]}
    if way == "fit":
        network.fit(images, labels, batch_size=BATCH, **every)
    else:
        varied = params["augment"] if way == "shipped" else None
        steps = -(-len(images) // BATCH)
        network.fit(
            batches(arrays["x_train"], labels, BATCH, params["seed"], varied),
            steps_per_epoch=steps,
            shuffle=False,
            **every,
        )
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    return {"seconds": seconds, "accuracy": right, "versions": versions}


def arithmetic() -> dict[str, float]:
    """The floating-point operations to train with one image (three times the forward pass: forward, and backward
    to the inputs and to the weights), and the machine's peak rate, in a product of large float32 matrices."""
    import keras
    import tensorflow as tf
    import yaml

    from digits.training.network import build

    params = yaml.safe_load((ROOT / "params.yaml").read_text())["train"]
    forward = 0
    for layer in build(params["filters"], params["dense"], params["dropout"]).layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            places = np.prod(layer.output.shape[1:-1], dtype=int)
            forward += 2 * int(places) * int(np.prod(layer.kernel.shape))
    a, b = (tf.random.normal((3072, 3072)) for _ in "ab")
    best = min(_timed(lambda: tf.linalg.matmul(a, b).numpy()) for _ in range(6))
    return {"operations_an_image": 3 * forward, "peak": 2 * 3072**3 / best}


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        learn(options.way, options.epochs)
        return
    from bench import install

    if not (ROOT / "data" / "digits.npz").exists():
        sys.exit("bench-train: data/digits.npz is missing; run `dvc repro data`")
    results, missing = {}, {}
    for name, (environment, way) in CONTENDERS.items():
        command = [__file__, "--way", way, "--epochs", str(options.epochs)]
        quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
        try:
            python = install(environment) / "python" if environment else sys.executable
            done = subprocess.run([python, *command], env=quiet, capture_output=True, text=True, timeout=1800)
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1])
            results[name] = json.loads(done.stdout.splitlines()[-1])
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            missing[name] = f"{type(error).__name__}: {error}"
    facts = arithmetic()
    print(
        f"{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}), "
        f"Python {platform.python_version()}, batch size {BATCH}, {options.epochs} epochs; "
        "of which the first includes building and compiling the network; "
        f"{facts['operations_an_image'] / 1e6:.1f} million operations per image; "
        f"peak of the machine {facts['peak'] / 1e9:.0f} GFLOP/s\n"
    )
    print(
        "| | seconds per epoch | first epoch | seconds to 99 % | accuracy | share of peak | versions |"
        "\n|---|---|---|---|---|---|---|"
    )
    later = {name: statistics.median(told["seconds"][1:]) for name, told in results.items()}
    for name, told in results.items():
        reached = next((i for i, accuracy in enumerate(told["accuracy"], 1) if accuracy >= 0.99), None)
        to_99 = f"{sum(told['seconds'][:reached]):.0f}" if reached else "not reached"
        share = facts["operations_an_image"] * 60_000 / later[name] / facts["peak"]
        versions = ", ".join(f"{package} {version}" for package, version in told["versions"].items())
        print(
            f"| {name} | {later[name]:.1f} | {told['seconds'][0]:.1f} | {to_99} | {told['accuracy'][-1]:.2%} "
            f"| {share:.0%} | {versions} |"
        )
    for name, why in missing.items():
        print(f"\n{name} was not measured, because of {why}.")
    for other in (FIT, TORCH):
        if other in later and OURS in later:
            print(f"\nseconds per epoch / {other}: {later[OURS] / later[other]:.2f}")
    record = {
        "date": str(datetime.date.today()),
        "cores": os.cpu_count(),
        "results": results,
        "missing": missing,
        **facts,
    }
    (ROOT / "benchmarks" / "training.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
