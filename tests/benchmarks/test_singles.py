"""Tests of benchmarks/singles.py: the pictures that measure how single digits are read."""

from io import BytesIO

import numpy as np
import pytest
import singles
from PIL import Image


@pytest.mark.parametrize("kind", singles.KINDS)
def test_the_pictures_of_a_kind_are_the_same_each_time(kind, drawn_digits):
    pictures = list(singles.made(kind, 2, drawn_digits))
    assert pictures == list(singles.made(kind, 2, drawn_digits))
    assert pictures[:1] == list(singles.made(kind, 1, drawn_digits))
    assert pictures[0].file != pictures[1].file
    assert all(0 <= picture.label <= 9 for picture in pictures)


def test_native_pictures_have_their_sizes(drawn_digits):
    for picture in singles.made("native", 8, drawn_digits):
        with Image.open(BytesIO(picture.file)) as image:
            assert f"{image.width}x{image.height}" == picture.sub


def test_depths_use_their_bits(drawn_digits):
    for picture in singles.made("depths", 8, drawn_digits):
        with Image.open(BytesIO(picture.file)) as image:
            assert image.mode == "I;16"
            largest = int(np.asarray(image).max())
        assert picture.sub == f"{largest.bit_length()} bits"


def test_inks_of_equal_brightness_are_flat_in_grey(drawn_digits):
    for picture in singles.made("colours", 6, drawn_digits):
        with Image.open(BytesIO(picture.file)) as image:
            grey, colour = np.asarray(image.convert("L"), float), np.asarray(image.convert("RGB"), float)
        spread = np.ptp(np.percentile(grey, [2, 98]))
        most = max(np.ptp(np.percentile(colour[..., i], [2, 98])) for i in range(3))
        assert most > 30
        assert (spread < most / 2) == (picture.sub == "equal brightness")


def test_formats_are_those_that_pillow_writes():
    sent, others = singles.written_by_pillow(True), singles.written_by_pillow(False)
    assert {("PNG", "I;16"), ("JPEG", "CMYK"), ("TIFF", "LAB"), ("WEBP", "RGBA")} <= set(sent)
    assert not {name for name, _ in sent} & {name for name, _ in others}
    for name, mode in (("PNG", "LA"), ("TIFF", "I;16B"), ("GIF", "P")):
        file = singles.file_in(Image.new("L", (9, 9), 200), name, mode)
        with Image.open(BytesIO(file)) as image:
            assert image.format == name
    assert singles.file_in(Image.new("L", (9, 9)), "JPEG", "RGBA") is None
