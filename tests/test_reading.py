"""Numbers in pictures: made here of drawn digits, read with the trained network."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from digits.imaging import PictureError
from digits.model import Classifier, load
from digits.reading import Reading, read

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(load(ROOT / "models" / "mnist.h5"))


def png(picture: Image.Image, **options) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def written(lines: list[str], size: int = 48, spread: float = 0.3) -> Image.Image:
    """Lines of printed digits, dark on light."""
    font = ImageFont.load_default(size)
    width = int(max(map(len, lines)) * size * (0.6 + spread)) + 2 * size
    picture = Image.new("L", (width, int(len(lines) * 1.8 * size) + size), 245)
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        for column, sign in enumerate(line):
            draw.text((size + column * size * (0.6 + spread), (0.5 + row * 1.8) * size), sign, 20, font)
    return picture


@pytest.fixture
def read_picture(classifier):
    def read_it(picture: Image.Image | bytes, **options) -> Reading:
        data = picture if isinstance(picture, bytes) else png(picture)
        return read(data, "image", classifier.probabilities, classifier.sure_threshold, **options)

    return read_it


def test_lines_are_read_from_top_to_bottom(read_picture):
    reading = read_picture(written(["2023", "857"]))
    assert reading.text == "2023\n857"
    assert [line.text for line in reading.lines] == ["2023", "857"]


def test_boxes_are_where_the_digits_are(read_picture):
    picture = written(["25"], 60)
    (line,) = read_picture(picture).lines
    dark = np.asarray(picture) < 128
    for digit in line.digits:
        x, y, width, height = digit.box
        assert dark[y : y + height, x : x + width].any()
        assert 30 < height < 60
    assert sum(
        dark[d.box[1] : d.box[1] + d.box[3], d.box[0] : d.box[0] + d.box[2]].sum() for d in line.digits
    ) > (0.9 * dark.sum())


def test_an_empty_picture_has_no_lines(read_picture):
    reading = read_picture(Image.new("L", (300, 200), 255))
    assert reading.text == ""
    assert reading.lines == reading.marks == []


def test_what_is_no_picture_is_refused(read_picture):
    with pytest.raises(PictureError) as refused:
        read_picture(b"no picture")
    assert refused.value.status == 415
