"""The pipeline's `images` stage: `python -m digits.training.images` makes all images that are not in the data set,
and writes them to data/images.npz. It divides the data set's training images into those for training, calibration
and validation, makes further digits like those that MNIST lacks, and outliers, which show no digit. The images
only depend on the data and the seed, so they are made in several processes."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from digits.imaging import prepare_grey
from digits.training import drawings, handwritten, outliers, synthetic
from digits.training.arrays import DIGITS, IMAGES, Arrays, read, sha256, write
from digits.training.stage import StageError, read_params, run

# one image each for training, calibration and validation
MIN_LIMIT = 3
# a function and its arguments
Task = tuple[Any, ...]


@dataclass(frozen=True)
class Outliers:
    """fraction: the number in an epoch, as a fraction of the training digits. sets: the number of different sets.
    kinds: the relative weight of each kind; 0 leaves it out."""

    fraction: float
    sets: int
    kinds: dict[str, float]


@dataclass(frozen=True)
class Params:
    """`images` in params.yaml, where each key is explained."""

    seed: int
    validation: int
    calibration_fraction: float
    synthetic_fraction: float
    low_resolution_fraction: float
    printed_fraction: float
    handwriting_fraction: float
    outliers: Outliers


def split(
    n: int, validation: int, calibration_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The indices, int64, of the images for training, calibration and validation, each in random order.

    Raises StageError if any of the three would be empty.

    Args:
        n: the number of images.
        validation: how many of them are not for training.
        calibration_fraction: the fraction of these for calibration.
        seed: of the random order.
    """
    calibration = round(calibration_fraction * validation)
    if not 0 < calibration < validation < n:
        raise StageError(
            f"{n} images are too few for training, calibration and validation: "
            f"params.yaml has validation: {validation} and calibration_fraction: {calibration_fraction}."
        )
    order = np.random.default_rng(seed).permutation(n)
    return order[validation:], order[:calibration], order[calibration:validation]


def low_resolution(images: np.ndarray, seed: int) -> np.ndarray:
    """Digits as they look after the service has prepared low-resolution pictures of them, uint8 (n, 28, 28) like
    `images`. MNIST has nothing like an enlarged scan of a digit that is eight pixels high.

    Each digit is reduced to a height of 7 to 16 pixels, with a slightly different aspect ratio, enlarged
    smoothly, and prepared as in the service. Raises ValueError for an image without ink.
    """
    rng = np.random.default_rng(seed)
    seen = np.empty_like(images)
    for i, image in enumerate(images):
        picture = Image.fromarray(image)
        box = picture.getbbox()
        if box is None:
            raise ValueError("an image without ink")
        height = rng.uniform(7, 16)
        width = height * (box[2] - box[0]) / (box[3] - box[1]) * np.exp(rng.normal(0, 0.15))
        # a wide digit keeps its shape
        shrink = min(1.0, 20 / width)
        size = max(2, round(width * shrink)), max(2, round(height * shrink))
        enlarge = rng.uniform(40, 120) / height
        small = picture.resize(size, Image.Resampling.BOX, box)
        large = small.resize((round(size[0] * enlarge), round(size[1] * enlarge)), Image.Resampling.BICUBIC)
        seen[i] = prepare_grey(np.asarray(ImageOps.expand(large, 8)))
    return seen


def digits_of_fonts(
    count: int, seed: int, draw: Callable[[str, np.random.Generator], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (count, 28, 28) in MNIST's format and their digits uint8 (count,). Letters in the same fonts
    are among the outliers, so without these digits a network would take everything that is printed for one.

    Args:
        count: the number of images, which only depend on the seed.
        draw: gives the picture of a digit in one of the fonts, uint8 (height, width), bright on black.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count, dtype=np.uint8)
    images = np.empty((count, 28, 28), np.uint8)
    for i, label in enumerate(labels):
        image = None
        while image is None:
            image = outliers.image_of(draw(str(label), rng), rng)
        images[i] = image
    return images, labels


def make(x: np.ndarray, y: np.ndarray, params: Params) -> Arrays:
    """All arrays of `IMAGES` except its facts.

    Raises StageError for an unknown kind of outliers, and if there are too few images.

    Args:
        x, y: the data set's images for training, uint8 (n, 28, 28), and their digits, uint8 (n,).
        params: `images` in params.yaml.
    """
    seed, strange = params.seed, params.outliers
    training, calibration, validation = split(len(x), params.validation, params.calibration_fraction, seed)
    n = len(training)
    few = training[: round(params.low_resolution_fraction * n)]
    # for calibration and validation, half as many outliers as digits
    half = 0.5 if strange.fraction else 0
    wanted = {
        "outliers": (training, strange.fraction * strange.sets, seed),
        "calibration_outliers": (calibration, half, seed + 1),
        "validation_outliers": (validation, half, seed + 2),
    }
    tasks: dict[str, Task] = {
        f"{name} {kind}": (outliers.draw_kind, kind, number, x[indices], y[indices], own_seed)
        for name, (indices, fraction, own_seed) in wanted.items()
        for kind, number in outliers.numbers(round(fraction * len(indices)), strange.kinds).items()
    }
    tasks["low resolution"] = low_resolution, x[few], seed
    tasks["printed"] = digits_of_fonts, round(params.printed_fraction * n), seed, drawings.printed
    tasks["written"] = digits_of_fonts, round(params.handwriting_fraction * n), seed, handwritten.digit
    tasks["synthetic"] = synthetic.draw, round(params.synthetic_fraction * n), 0, seed
    done = _in_processes(tasks)
    fonts, font_labels = zip(done["printed"], done["written"], strict=True)
    # sorted by kind, so that each set has the same fraction of every kind
    drawn = {name: [done[f"{name} {kind}"] for kind in strange.kinds] for name in wanted}
    numbers = [len(images) for images in drawn["validation_outliers"]]
    none = np.empty((0, 28, 28), np.uint8)
    return {
        "training": training,
        "calibration": calibration,
        "validation": validation,
        "digits": np.concatenate([done["synthetic"]["x_train"], *fonts, done["low resolution"]]),
        "digit_labels": np.concatenate([done["synthetic"]["y_train"], *font_labels, y[few]]),
        **{name: np.concatenate([none, *images]) for name, images in drawn.items()},
        "validation_kinds": np.repeat(np.array(list(strange.kinds), "U"), numbers),
    }


def _in_processes(tasks: dict[str, Task]) -> dict[str, Any]:
    """The results of functions with their arguments, from a process for each CPU."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # OpenCV's code for newer processors rounds differently, and the images must have the same hash on all
    pool = ProcessPoolExecutor(cpus, initializer=cv2.setUseOptimized, initargs=(False,))
    try:
        # the processes inherit that SIGINT is blocked: a terminal sends it to all, and only the parent answers
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            futures = {name: pool.submit(*task) for name, task in tasks.items()}
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        return {name: future.result() for name, future in futures.items()}
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise StageError("A process was killed, probably because memory ran out. Run it again.") from None
        raise
    finally:
        pool.shutdown()


def main() -> None:
    """Make the images, and write data/images.npz."""
    params = read_params("images", Params)
    parser = argparse.ArgumentParser(description="Make all images that are not in the data set.")
    parser.add_argument("--limit", type=int, help="number of the data set's images to use, for a quick check")
    parser.add_argument("--seed", type=int, default=params.seed, help="replaces the seed in params.yaml")
    parser.add_argument("--out", type=Path, default=IMAGES.path)
    args = parser.parse_args()
    params = replace(params, seed=args.seed)
    if args.limit is not None:
        if args.limit < MIN_LIMIT:
            parser.error(f"--limit must be at least {MIN_LIMIT}")
        params = replace(params, validation=min(params.validation, max(2, args.limit // 5)))
    if params.outliers.sets < 1:
        raise StageError("params.yaml: images.outliers.sets must be at least 1.")
    begun = time.monotonic()
    arrays = read(DIGITS)
    made = make(arrays["x_train"][: args.limit], arrays["y_train"][: args.limit], params)
    facts = {"params": asdict(params), "data_sha256": sha256(DIGITS.path)}
    write(made | {"facts": np.array([json.dumps(facts)])}, args.out)
    print(
        f"{len(made['digits'])} digits and {len(made['outliers'])} outliers to train with in {args.out}, "
        f"made in {time.monotonic() - begun:.0f} s"
    )


if __name__ == "__main__":
    run(main)
