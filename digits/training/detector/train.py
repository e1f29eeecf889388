"""Trains the detector. `python -m digits.training.detector`, the pipeline's `detector` stage, draws pages while
the network learns from them, and writes models/detector.h5, its compiled .tflite, its card and the learning
curve.

The learning rate rises, stays, and falls to zero in the end (warm-up, stable, decay: Hu et al. 2024,
arXiv:2404.06395), so that a run can be continued: with a larger `detector.pages_in_all` in params.yaml the next
training starts where the learning rate began to fall. A run that is stopped, even by Ctrl-C, goes on where it
was.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# oneDNN's convolutions are a fifth faster on processors with AVX2 only, where TensorFlow does not use them by
# default
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from digits.training.detector import state as states
from digits.training.detector.card import write_card
from digits.training.detector.compiled import compiled
from digits.training.detector.feeder import batches
from digits.training.detector.losses import losses
from digits.training.detector.network import build
from digits.training.detector.pages import Page, Pages
from digits.training.detector.params import detector_params
from digits.training.detector.scores import scores
from digits.training.detector.state import State
from digits.training.stage import PARAMS, ROOT, outputs

SAVE_EVERY = 120  # seconds
# the files in the data folder that pages are made from
PARTS = ("digits.npz", "fonts/*/*.*", "photographs/*.*")


class Trainer:
    """The network with its optimizer and the moving average of its weights."""

    def __init__(self, params: dict[str, Any]) -> None:
        keras.utils.set_random_seed(params["seed"])
        self.params = params
        # the weights stay float32, and so does the network that is saved
        keras.config.set_dtype_policy(params["precision"])
        self.network = build(params["network"])
        keras.config.set_dtype_policy("float32")
        # holds the moving average
        self.averaged = build(params["network"])
        self.averaged.set_weights(self.network.get_weights())
        self.optimizer = keras.optimizers.AdamW(
            0.0, weight_decay=params["weight_decay"], beta_1=0.9, beta_2=0.98, global_clipnorm=params["clip"]
        )
        self.optimizer.exclude_from_weight_decay(var_names=["beta", "gamma", "bias"])
        self.optimizer.build(self.network.trainable_variables)
        self.steps = -(-params["pages_in_all"] // params["batch"])
        self.stable_steps = round(self.steps * (1 - params["decay"]))
        self.step = tf.function(self._step, reduce_retracing=True)
        self.answer = tf.function(lambda x: self.averaged(x, training=False), reduce_retracing=True)

    def variables(self) -> list[Any]:
        """All that a state holds, in order."""
        return [*self.network.variables, *self.averaged.variables, *self.optimizer.variables]

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        warm = min(1.0, (step + 1) * self.params["batch"] / self.params["warmup"])
        left = (self.steps - step) / max(1, self.steps - self.stable_steps)
        return float(self.params["learning_rate"] * min(warm, max(0.0, min(1.0, left))))

    def _step(self, x: tf.Tensor, y: tf.Tensor, rate: tf.Tensor, keep: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            parts = losses(y, self.network(tf.cast(x, tf.float32), training=True))
            loss = tf.add_n(parts)
        gradients = tape.gradient(loss, self.network.trainable_variables)
        self.optimizer.learning_rate.assign(rate)
        self.optimizer.apply(gradients, self.network.trainable_variables)
        for mean, now in zip(self.averaged.variables, self.network.variables, strict=True):
            if mean.dtype == "float32":
                mean.assign(keep * mean.value + (1 - keep) * now.value)
        return tf.stack(parts)

    def state(self, step: int, curve: list[dict[str, float]], recent: list[list[float]]) -> State:
        """The state after so many steps."""
        return State(step, self.params["pages_in_all"], [v.numpy() for v in self.variables()], curve, recent)

    def restore(self, state: State) -> None:
        """Continue from a state."""
        for variable, array in zip(self.variables(), state.arrays, strict=True):
            variable.assign(array)

    def scores(self, pages: list[Page]) -> dict[str, float]:
        """What the moving average reaches on pages."""
        inputs = np.stack([page.input for page in pages])[..., None]
        return scores(
            pages, np.concatenate([self.answer(inputs[i : i + 8]).numpy() for i in range(0, len(inputs), 8)])
        )


def train(
    trainer: Trainer, data: Path, folder: Path, held: list[Page], stop: list[bool], latest: str | None = None
) -> State:
    """Train until the last step, or until stop[0] is true, and return the state.

    data: the folder with digits.npz, fonts and photographs. folder: where states are kept. held: the held-out
    pages. latest: where to put the compiled moving average at each evaluation.
    """
    params = trainer.params
    begun = states.to_resume(folder, params["pages_in_all"], trainer.stable_steps)
    curve: list[dict[str, float]] = []
    recent: list[list[float]] = []
    step = 0
    if begun:
        trainer.restore(begun)
        step, curve, recent = begun.step, begun.curve, begun.recent
        print(f"resumed after {step * params['batch']} pages", flush=True)
    first, start, saved = step, time.monotonic(), time.monotonic()
    every = max(1, params["evaluate_every"] // params["batch"])
    feed: Iterator[tuple[np.ndarray, np.ndarray]] = batches(
        params["pages"], data, params["batch"], step * params["batch"], params["processes"]
    )
    try:
        while step < trainer.steps and not stop[0]:
            x, y = next(feed)
            keep = min(params["ema"], (1 + step) / (10 + step))
            parts = trainer.step(x, y, tf.constant(trainer.rate(step)), tf.constant(keep, tf.float32))
            recent.append(parts.numpy().tolist())
            step += 1
            if step % every == 0 or step == trainer.steps:
                mean = np.mean(recent, 0)
                recent = []
                if not np.isfinite(mean).all():
                    raise FloatingPointError(f"The loss is {mean} at step {step}.")
                row = {"pages": step * params["batch"], "objectness": float(mean[0]), "class": float(mean[1]),
                       "box": float(mean[2]), **trainer.scores(held)}  # fmt: skip
                curve = [*curve, {name: round(value, 5) for name, value in row.items()}]
                print(
                    f"digits {row['f1']:.4f}, strings {row['strings']:.4f} of the held-out pages", flush=True
                )
                if latest:
                    path = Path(latest)
                    with outputs(path.parent, path.name) as new:
                        (new / path.name).write_bytes(compiled(trainer.averaged, params["network"]))
            if step == trainer.stable_steps:
                states.save(folder / "stable.npz", trainer.state(step, curve, recent))
            if time.monotonic() - saved > SAVE_EVERY:
                states.save(folder / "latest.npz", trainer.state(step, curve, recent))
                saved = time.monotonic()
                progress(recent, trainer, step, first, start)
    finally:
        feed.close()  # type: ignore[attr-defined]
    final = trainer.state(step, curve, recent)
    states.save(folder / "latest.npz", final)
    return final


def progress(recent: list[list[float]], trainer: Trainer, step: int, first: int, start: float) -> None:
    """Print how far the training is, how much time is left, and the latest losses."""
    pace = (time.monotonic() - start) / max(1, step - first)
    minutes = round((trainer.steps - step) * pace / 60)
    batch = trainer.params["batch"]
    loss = " ".join(f"{value:.3f}" for value in np.mean(recent[-200:] or [[0.0] * 3], 0))
    print(
        f"{step * batch} of {trainer.steps * batch} pages, {batch / pace:.1f} a second,"
        f" {minutes // 60} h {minutes % 60:02} min left, losses {loss}",
        flush=True,
    )


def main() -> None:
    """Train by params.yaml and write the model."""
    parser = argparse.ArgumentParser(description="Train the detector.")
    parser.add_argument(
        "--pages", type=int, help="pages in all, instead of params.yaml's detector.pages_in_all"
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT / "data", help="the folder with digits.npz, fonts, photographs"
    )
    parser.add_argument(
        "--states", type=Path, default=states.STATES, help="where to keep what a stopped run needs"
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="the folder that gets models and metrics")
    parser.add_argument("--params", type=Path, default=PARAMS, help="another params.yaml")
    args = parser.parse_args()
    params = detector_params(args.params)
    if args.pages:
        params["pages_in_all"] = args.pages
    # before the first operation; more threads than this wait for each other
    tf.config.threading.set_intra_op_parallelism_threads(params["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    stop = [False]
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.__setitem__(0, True))
    held_pages = Pages(params["pages"], args.data, held=True)
    files = sorted(path for part in PARTS for path in args.data.glob(part))
    held = [held_pages.page(number) for number in range(params["held_out_pages"])]
    folder = args.states / states.run_name(params, files)
    trainer = Trainer(params)
    print(f"{trainer.network.count_params()} parameters; the state is kept in {folder}", flush=True)
    final = train(trainer, args.data, folder, held, stop, os.environ.get("DIGITS_DETECTOR_LATEST"))
    if stop[0]:
        sys.exit("Stopped. The next run goes on from here.")
    finish(trainer, final, params, files, args.out)


def finish(trainer: Trainer, final: State, params: dict[str, Any], files: list[Path], out: Path) -> None:
    """Write the model, its compiled form, its card and the learning curve."""
    # Keras would advise another format than .h5
    logging.getLogger("absl").setLevel(logging.ERROR)
    names = [f"models/detector.{suffix}" for suffix in ("h5", "tflite")]
    names += [f"metrics/detector/{name}" for name in ("trained.json", "metrics.json", "curve.tsv")]
    with outputs(out, *names) as new:
        models, metrics = new / "models", new / "metrics" / "detector"
        trainer.averaged.save(models / "detector.h5")
        (models / "detector.tflite").write_bytes(compiled(trainer.averaged, params["network"]))
        write_card(
            metrics / "trained.json", models, trainer.averaged.count_params(), params, files, final.curve
        )
        (metrics / "metrics.json").write_text(json.dumps(final.curve[-1], indent=2) + "\n")
        with (metrics / "curve.tsv").open("w", newline="") as file:
            rows = csv.DictWriter(file, list(final.curve[-1]), delimiter="\t", lineterminator="\n")
            rows.writeheader()
            rows.writerows(final.curve)
    print(f"{out / names[0]}: digits {final.curve[-1]['f1']:.4f}, strings {final.curve[-1]['strings']:.4f}")
