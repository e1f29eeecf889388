"""Preparing pictures: the digit is found in them and becomes an image like MNIST's, within limits of memory."""

from __future__ import annotations

import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from digits.detector import Detector
from digits.imaging import CostlyPictures, PictureError, prepare, prepare_pages
from digits.model import Classifier, load, scale
from digits.reading.search import locate
from pictures import SEVEN, encoded, large, png_header, scene
from project import ROOT


@cache
def models() -> tuple[Classifier, Detector]:
    folder = ROOT / "models"
    return Classifier(load(folder / "mnist.h5")), Detector(load(folder / "detector.h5"))


def prepared(picture: bytes) -> np.ndarray:
    return prepare([picture], ["image"], locate=partial(locate, models()[1]))[0]


def digit(picture: bytes) -> int:
    return int(models()[0].probabilities(scale(prepared(picture)[None])).argmax())


def with_alpha(ink: int) -> Image.Image:
    """The seven in one grey level on a transparent background."""
    picture = Image.new("LA", (300, 220), (ink, 0))
    picture.putalpha(scene(dark=False))
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        with_alpha(0),
        with_alpha(255),
        with_alpha(0).convert("RGBA"),
        scene().convert("RGB").quantize(8),
        scene().convert("1"),
        scene().convert("CMYK").convert("RGB"),
        scene().convert("I;16").point(lambda v: v * 200),
        Image.fromarray(np.asarray(scene(dark=False), np.uint16) * 257),
        scene().convert("RGB").point(lambda v: v // 2 + 60),
    ],
    ids=[
        "black on nothing",
        "white on nothing",
        "RGBA",
        "palette",
        "1 bit",
        "CMYK",
        "16 bit",
        "16 bit light",
        "grey",
    ],
)
def test_every_mode_is_read(picture: Image.Image) -> None:
    assert digit(encoded(picture)) == 7


def test_a_cmyk_jpeg_and_a_float_tiff_are_read() -> None:
    assert digit(encoded(scene().convert("CMYK"), "JPEG")) == 7
    assert digit(encoded(Image.fromarray(np.asarray(scene(), np.float32) / 255), "TIFF")) == 7


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_cameras_rotation_mark_is_applied(turn: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    picture = scene().convert("RGB")
    if turn in undo:
        picture = picture.transpose(Image.Transpose(undo[turn]))
    exif = Image.Exif()
    exif[0x0112] = turn
    upright = np.asarray(prepare([encoded(scene().convert("RGB"), "PNG")], ["image"]), np.int16)
    turned = np.asarray(prepare([encoded(picture, "PNG", exif=exif)], ["image"]), np.int16)
    assert np.abs(upright - turned).mean() < 3


def test_polarity_makes_no_difference() -> None:
    dark, light = (prepare([encoded(scene(d))], ["image"])[0].astype(np.int16) for d in (True, False))
    assert np.abs(dark - light).max() <= 2


@pytest.mark.parametrize("size", [(28, 28), (60, 60), (300, 220), (1000, 1000), (3000, 2000)])
def test_a_digit_of_any_size_in_the_picture_is_found(size: tuple[int, int]) -> None:
    height = 20 if size == (28, 28) else 44
    assert digit(encoded(scene(size=size, height=height))) == 7


def test_a_digit_is_read_despite_shadow_and_noise() -> None:
    rng = np.random.default_rng(5)
    grey = np.asarray(scene(), np.float32) * 0.55 + 90
    grey = grey * np.linspace(0.5, 1, 300)[None, :] * np.linspace(1, 0.8, 220)[:, None]
    grey = grey + rng.normal(0, 6, grey.shape)
    grey[rng.random(grey.shape) < 0.0005] = 0
    assert digit(encoded(Image.fromarray(grey.clip(0, 255).astype(np.uint8)))) == 7


@pytest.mark.parametrize("darkest", [0.6, 0.7, 0.8])
def test_a_digit_that_fills_its_picture_is_read_in_a_shadow(darkest: float) -> None:
    # the border is half ink and half paper, and the paper is uneven
    picture = Image.new("L", (200, 260), 235)
    pen = ImageDraw.Draw(picture)
    for box in ((40, 2, 160, 130), (30, 120, 170, 258)):
        pen.ellipse(box, outline=80, width=28)
    grey = np.asarray(picture.filter(ImageFilter.GaussianBlur(6)), np.float32)
    grey = grey * np.linspace(1, darkest, 200)[None, :]
    assert digit(encoded(Image.fromarray(grey.astype(np.uint8)).crop((28, 0, 172, 260)))) == 8


@pytest.mark.parametrize("dark", [True, False], ids=["dark on light", "light on dark"])
@pytest.mark.parametrize("height", [20, 60, 400])
def test_a_digit_that_fills_its_picture_is_read(dark: bool, height: int) -> None:
    tight = Image.fromarray(SEVEN)
    tight = tight.crop(tight.getbbox()).resize((height * 3 // 4, height), Image.Resampling.BICUBIC)
    assert digit(encoded(tight.point(lambda v: 255 - v) if dark else tight)) == 7


@pytest.mark.parametrize("width", [4, 8, 14, 20, 28, 40])
def test_a_vertical_bar_is_centred_and_read_as_a_1(width: int) -> None:
    picture = Image.new("L", (280, 280), 255)
    ImageDraw.Draw(picture).line([(140, 50), (140, 230)], fill=0, width=width)
    image = prepared(encoded(picture)).astype(float)
    centre = [(image.sum(axis) @ np.arange(28)) / image.sum() for axis in (0, 1)]
    assert np.abs(np.subtract(centre, 13.5)).max() <= 0.6
    assert digit(encoded(picture)) == 1


@pytest.mark.parametrize(("margin", "width"), [(0, 2), (5, 3), (10, 6)])
@pytest.mark.parametrize("size", [(220, 220), (1200, 1000)], ids=["small", "large"])
def test_a_frame_is_not_part_of_the_digit(margin: int, width: int, size: tuple[int, int]) -> None:
    # in a large picture the digit is examined twice, the second time with little of the frame visible
    picture = scene(size=size, height=120)
    box = (margin, margin, size[0] - 1 - margin, size[1] - 1 - margin)
    ImageDraw.Draw(picture).rectangle(box, outline=0, width=width)
    framed, plain = (prepared(encoded(p)).astype(int) for p in (picture, scene(size=size, height=120)))
    assert np.abs(framed - plain).mean() < 4


@pytest.mark.parametrize("slope", [0, 8])
@pytest.mark.parametrize("lying", [True, False], ids=["level", "upright"])
def test_ruled_lines_that_touch_the_digit_are_not_part_of_it(lying: bool, slope: int) -> None:
    ruled, plain = (scene(size=(260, 240), height=150) for _ in range(2))
    left, top, _, bottom = ImageOps.invert(plain.convert("L")).getbbox()
    pen = ImageDraw.Draw(ruled)
    # the lines cross the ends of the digit, but don't lie along a stroke
    for at in (top + 3, bottom - 3) if lying else (left + 3,):
        ends = ((0, at), (260, at + slope)) if lying else ((at, 0), (at + slope, 240))
        pen.line(ends, fill=40, width=3)
    boxes = [Image.fromarray(prepared(encoded(p))).getbbox() for p in (ruled, plain)]
    # what is left of a line ends near the digit
    assert np.abs(np.subtract(*boxes)).max() <= 4
    assert digit(encoded(ruled)) == 7


@pytest.mark.parametrize("dark", [True, False], ids=["dark on light", "light on dark"])
def test_a_digit_on_a_panel_or_a_sheet_is_read(dark: bool) -> None:
    panel = scene(dark, size=(300, 260), height=160)
    picture = Image.new("L", (640, 480), 20 if dark else 235)
    picture.paste(panel, (150, 100))
    assert digit(encoded(picture)) == 7


@pytest.mark.parametrize("shade", [0.7, 0.5])
def test_a_digit_across_a_shadows_hard_edge_is_read(shade: float) -> None:
    grey = np.asarray(scene(size=(900, 700), height=300), np.float32) * 0.6 + 80
    x, y = np.meshgrid(np.arange(900), np.arange(700))
    grey = np.where(x + 0.4 * y < 500, grey * shade, grey)
    assert digit(encoded(Image.fromarray(grey.astype(np.uint8)))) == 7


def test_table_lines_and_a_cut_off_neighbour_are_not_part_of_the_digit() -> None:
    picture = scene(size=(245, 200), height=110)
    pen = ImageDraw.Draw(picture)
    for line in ((25, 0, 25, 200), (225, 0, 225, 200), (0, 14, 245, 16), (0, 172, 245, 170)):
        pen.line(line, 0, 4)
    assert digit(encoded(picture)) == 7
    picture = scene(size=(245, 200), height=110)
    ImageDraw.Draw(picture).arc((215, 130, 275, 190), 0, 360, 0, 8)
    assert digit(encoded(picture)) == 7


@pytest.mark.parametrize("grey", [60, 150])
def test_lines_with_less_ink_than_the_digit_are_not_part_of_it(grey: int) -> None:
    table, plain = (scene(size=(200, 190), height=110) for _ in range(2))
    pen = ImageDraw.Draw(table)
    for line in ((14, 0, 16, 190), (184, 0, 186, 190), (0, 12, 200, 14), (0, 176, 200, 178)):
        pen.line(line, grey, 2)
    images = (prepared(encoded(picture)).astype(int) for picture in (table, plain))
    assert np.abs(np.subtract(*images)).mean() < 4


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("grey", [20, 90])
def test_a_slanted_1_in_a_cell_that_is_cut_on_its_lines_is_read(grey: int, width: int) -> None:
    picture = Image.new("L", (120, 122), 235)
    pen = ImageDraw.Draw(picture)
    pen.line((20, 92, 100, 28), 40, 6)
    pen.rectangle((0, 0, 119, 121), outline=grey, width=width)
    assert digit(encoded(picture)) == 1


def test_a_zero_with_a_dot_that_fills_its_picture_keeps_its_ring() -> None:
    picture = Image.new("L", (100, 140), 255)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((0, 0, 99, 139), outline=0, width=12)
    pen.ellipse((42, 55, 58, 85), fill=0)
    image = prepared(encoded(picture))
    rows = np.flatnonzero((image > 128).any(1))
    assert np.count_nonzero(image > 128) > 80
    assert not (image[rows[0] + 4, 12:16] > 128).any()


def test_a_digit_in_pieces_that_fills_its_picture_keeps_them() -> None:
    picture = Image.new("L", (90, 140), 255)
    pen = ImageDraw.Draw(picture)
    pen.line((2, 5, 88, 5), 0, 8)
    pen.line((80, 22, 30, 136), 0, 10)
    image = prepared(encoded(picture))
    # the bar and the stem, with a row of paper between them
    rows = image.max(axis=1) > 60
    assert rows[np.flatnonzero(rows)[0] :].argmin() > 0
    assert digit(encoded(picture)) == 7


def test_the_result_has_mnists_form() -> None:
    image = prepare([encoded(scene())], ["image"])[0]
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) < 20
    mass = image / image.sum()
    assert abs((mass.sum(0) * np.arange(28)).sum() - 13.5) <= 0.6
    assert abs((mass.sum(1) * np.arange(28)).sum() - 13.5) <= 0.6


def test_noise_alone_is_not_a_digit() -> None:
    noise = np.random.default_rng(1).normal(128, 10, (200, 200)).clip(0, 255).astype(np.uint8)
    with pytest.raises(PictureError, match="shows no digit"):
        prepare([encoded(Image.fromarray(noise))], ["image"])


@pytest.mark.parametrize(
    ("size", "kind", "mode", "options"),
    [
        ((8160, 6120), "PNG", "RGBA", {"compress_level": 1}),
        ((8160, 6120), "PNG", "RGB", {"compress_level": 1}),
        ((8160, 6120), "GIF", "P", {}),
        ((4000, 4000), "WEBP", "RGB", {"method": 0}),
        ((6400, 5000), "TIFF", "RGB", {"compression": "tiff_deflate", "strip_size": 1 << 30}),
        ((4962, 7014), "JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    ],
    ids=["RGBA", "RGB", "GIF", "WEBP", "TIFF", "progressive"],
)
def test_the_largest_pictures_stay_within_a_workers_memory(
    tmp_path: Path, size: tuple[int, int], kind: str, mode: str, options: dict[str, Any]
) -> None:
    (tmp_path / "picture").write_bytes(large(size, kind, mode, **options))
    code = """if True:
        import sys
        from app import app
        from digits.imaging import prepare
        assert prepare([open(sys.argv[1], "rb").read()], ["image"]).any()
        # the peak of getrusage would be inherited from the parent process
        print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
    """
    command = [sys.executable, "-c", code, str(tmp_path / "picture")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 400 * 1024


def test_a_progressive_jpeg_counts_with_the_memory_for_its_coefficients() -> None:
    # at an eighth of its size it has one megapixel, but its coefficients take 300 MB
    size = (8160, 6120)
    with pytest.raises(PictureError) as refusal:
        prepare([large(size, "JPEG", "RGB", progressive=True, subsampling=0)], ["image"])
    assert refusal.value.kind == "large"


def test_many_large_photos_are_accepted_because_they_are_decoded_at_a_smaller_size() -> None:
    photo = large((4962, 7014), "JPEG", "RGB")
    assert prepare([photo] * 5, ["image"] * 5).shape == (5, 28, 28)
    with pytest.raises(PictureError, match="in total") as refusal:
        prepare([photo] * 6, ["image"] * 6)
    assert refusal.value.kind == "large"


def test_a_caller_can_postpone_huge_pictures() -> None:
    # there are no pixels after the header, so decoding it would fail
    header = png_header(4000, 2000)
    with pytest.raises(CostlyPictures):
        prepare_pages([header], ["image"], max_pixels=7_999_999)
    with pytest.raises(CostlyPictures):
        prepare_pages([header] * 2, ["image"] * 2, max_pixels=8_000_000)
    with pytest.raises(PictureError, match="incomplete"):
        prepare_pages([header], ["image"], max_pixels=8_000_000)
    photo = large((4962, 7014), "JPEG", "RGB")
    assert prepare_pages([photo], ["image"], max_pixels=3_000_000)[0].image.any()


def test_a_large_picture_with_prepare_none_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(PictureError, match="28x28"):
        prepare([png_header(4000, 2000)], ["image"], as_is=True)


def prepared_or_none(picture: bytes) -> np.ndarray | None:
    try:
        return prepare([picture], ["image"])
    except PictureError:
        return None


KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")


VALID = [encoded(scene(size=(60, 50), height=30).convert("RGB"), kind) for kind in KINDS]


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(VALID), CHANGES, st.floats(0.2, 1))
def test_a_mutated_picture_is_an_image_or_a_problem(
    whole: bytes, changes: list[tuple[float, int]], cut: float
) -> None:
    content = bytearray(whole)
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    image = prepared_or_none(bytes(content[: int(len(content) * cut)]))
    if image is not None:
        assert image.shape == (1, 28, 28)
        assert image.dtype == np.uint8


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_picture_of_any_pixels_is_an_image_or_a_problem(
    width: int, height: int, data: st.DataObject
) -> None:
    pixels = data.draw(st.binary(min_size=width * height, max_size=width * height))
    picture = Image.frombytes("L", (width, height), pixels)
    image = prepared_or_none(encoded(picture))
    assert image is None or image.any()
