"""Draws digits, letters and pieces of words in the hands of fonts (digits/training/hands.py)."""

from __future__ import annotations

import cv2
import numpy as np

from digits.training.drawings import bent, warped
from digits.training.hands import SIDE, Hand, hands, letters


def digit(label: str, rng: np.random.Generator) -> np.ndarray:
    """A digit, uint8 (height, width), bright on black."""
    return _by_hand(_hand(rng)[label], rng)


def letter(rng: np.random.Generator) -> np.ndarray:
    """A letter or sign that does not look like a digit, uint8 (height, width), bright on black."""
    return _by_hand(_letter(_hand(rng), rng), rng)


def piece(rng: np.random.Generator) -> np.ndarray:
    """What a wrong cut leaves of a word: one to three letters, of which the first or the last is cut in two. uint8
    (height, width), bright on black."""
    hand = _hand(rng)
    images = [_letter(hand, rng) for _ in range(int(rng.integers(2, 4)))]
    apart = rng.integers(-2, 4, len(images))
    word = np.zeros((SIDE, sum(image.shape[1] + 4 for image in images)), np.uint8)
    at, ends = 0, []
    for whole, gap in zip(images, apart, strict=True):
        x, _, width, _ = cv2.boundingRect(whole)
        image = whole[:, x : x + width]
        left = max(0, at + int(gap)) if at else 0
        there = word[:, left : left + image.shape[1]]
        np.maximum(there, image, out=there)
        at = left + image.shape[1]
        ends.append((left, at))
    first, last = ends[0], ends[-1]
    # cut within the first letter, within the last, or within both
    cut_first, cut_last = [(True, False), (False, True), (True, True)][rng.integers(3)]
    start = round(first[0] + (first[1] - first[0]) * rng.uniform(0.3, 0.7)) if cut_first else 0
    stop = round(last[0] + (last[1] - last[0]) * rng.uniform(0.3, 0.7)) if cut_last else last[1]
    return _by_hand(word[:, start:stop], rng)


def _hand(rng: np.random.Generator) -> Hand:
    return hands()[rng.integers(len(hands()))]


def _letter(hand: Hand, rng: np.random.Generator) -> np.ndarray:
    known = letters(hand)
    return hand[known[rng.integers(len(known))]]


def _by_hand(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image with another pen, slanted, turned and bent, uint8 (96, 96)."""
    x, y, width, height = cv2.boundingRect(image)
    scale = 64 / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    large = cv2.resize(image[y : y + height, x : x + width], size, interpolation=cv2.INTER_CUBIC)
    top, left = (96 - size[1]) // 2, (96 - size[0]) // 2
    large = cv2.copyMakeBorder(large, top, 96 - size[1] - top, left, 96 - size[0] - left, cv2.BORDER_CONSTANT)
    pen = int(rng.integers(-2, 8))
    if pen:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (abs(pen) + 1,) * 2)
        other = (cv2.dilate if pen > 0 else cv2.erode)(large, kernel)
        # hairlines would vanish
        large = other if other.max() > 200 else large
    return bent(warped(large, rng), rng)
