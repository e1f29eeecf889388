"""Draws pages in processes of their own, beside the network's training, and gives them out in order."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from digits.training.detector.pages import Pages
from digits.training.detector.targets import target

AHEAD = 8  # batches that are drawn in advance

_pages: Pages | None = None


def _begin(params: dict[str, Any], data: Path) -> None:
    """Prepare a process for drawing."""
    global _pages
    # Ctrl-C also reaches this process; the trainer ends it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _pages = Pages(params, data)


def _draw(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    assert _pages is not None  # noqa: S101  _begin has run
    pages = [_pages.page(number) for number in range(first, first + count)]
    inputs = np.stack([page.input for page in pages])[..., None].astype(np.float16)
    return inputs, np.stack([target(page) for page in pages])


def batches(
    params: dict[str, Any], data: Path, batch: int, first: int, processes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches of inputs, float16 (batch, HEIGHT, WIDTH, 1), and targets, from page number `first` on.

    params: params.yaml's `detector.pages`. data: the folder with digits.npz, fonts and photographs.
    """
    # a new interpreter, because TensorFlow's threads don't survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _begin, (params, data)) as pool:
        waiting: deque[Future[tuple[np.ndarray, np.ndarray]]] = deque()
        try:
            while True:
                while len(waiting) < AHEAD:
                    waiting.append(pool.submit(_draw, first, batch))
                    first += batch
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
