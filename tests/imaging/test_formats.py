"""Files of all formats: the one table of formats, pages, and what does not change a picture's pixels."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

import predicted
from app import create_app
from digits.imaging import PictureError, prepare
from digits.imaging.decode import READ, decode_grey, open_picture
from digits.imaging.formats import FORMATS, NAMES, SUFFIXES, format_of
from project import ROOT

SAMPLES = ROOT / "digits" / "web" / "static" / "samples"
BLANK = Image.new("L", (300, 200), 255)


@pytest.fixture(scope="module")
def client() -> FlaskClient:
    return create_app().test_client()


def seven() -> Image.Image:
    return Image.open(SAMPLES / "7.png").convert("L")


def number() -> Image.Image:
    return Image.open(SAMPLES / "number.png").convert("L")


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    # a copy, because Pillow keeps the options of another format
    try:
        picture.copy().save(file, kind, **options)
    except (OSError, ValueError):
        # Pillow writes some formats only in colour, such as QOI
        picture.convert("RGB").save(file, kind, **options)
    return file.getvalue()


def pages(kind: str, *pictures: Image.Image) -> bytes:
    return saved(pictures[0], kind, save_all=True, append_images=[each.copy() for each in pictures[1:]])


@pytest.mark.parametrize("kind", [each.name for each in FORMATS])
def test_every_format_is_read(kind: str, client: FlaskClient) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif")
    if kind == "ICO":
        file = saved(seven().resize((128, 128)), kind)
    else:
        file = saved(seven(), kind, **({"quality": 90} if kind in ("HEIF", "AVIF") else {}))
    assert format_of(file) == next(each for each in FORMATS if each.name == kind)
    answer = client.post("/predict", data=file, content_type="image/anything")
    assert (answer.status_code, answer.json["predicted_digit"]) == (200, 7)


def test_the_client_and_the_page_know_the_same_formats_as_the_service() -> None:
    assert predicted.PICTURES == SUFFIXES
    script = (ROOT / "digits" / "web" / "static" / "files.js").read_text()
    assert set(" ".join(re.findall(r'^  "(\..+)",$', script, re.MULTILINE)).split()) == SUFFIXES


@pytest.mark.parametrize("kind", ["SVG", "EPS", "ICNS"])
def test_another_format_is_refused_with_the_names_of_those_that_are_read(
    kind: str, client: FlaskClient
) -> None:
    # Pillow would open the last two
    file = b"<svg/>" if kind == "SVG" else saved(seven(), kind)
    answer = client.post("/predict", data=file, content_type="image/anything")
    assert answer.status_code == 415
    assert all(name in answer.json["detail"] for name in READ)
    assert answer.json["formats"] == READ
    assert set(READ) | {"HEIF"} == set(NAMES)


@pytest.mark.parametrize("kind", ["PDF", "TIFF"])
def test_the_first_page_with_a_digit_is_read_and_the_pages_are_counted(
    kind: str, client: FlaskClient
) -> None:
    file = pages(kind, BLANK, seven(), number())
    answer = client.post("/predict", data=file, content_type="image/tiff").json
    assert (answer["predicted_digit"], answer["page"], answer["pages"]) == (7, 2, 3)
    alone = client.post("/predict", data=pages(kind, seven()), content_type="image/tiff").json
    assert "pages" not in alone
    blank = client.post("/predict", data=pages(kind, BLANK, BLANK), content_type="image/tiff")
    assert blank.status_code == 422
    assert "any of its 2 pages" in blank.json["detail"]


@pytest.mark.parametrize("kind", ["PDF", "TIFF"])
def test_read_answers_a_file_of_several_pages_page_by_page(kind: str, client: FlaskClient) -> None:
    file = pages(kind, number(), BLANK, seven())
    readings = client.post("/read", data=file, content_type="image/tiff").json["readings"]
    assert [(each["page"], each["text"]) for each in readings] == [(1, "40725"), (2, ""), (3, "7")]
    form = {"a": (BytesIO(file), "a"), "b": (BytesIO(saved(seven(), "PNG")), "b")}
    several = client.post("/read", data=form).json["readings"]
    assert [each["page"] for each in several[0]["readings"]] == [1, 2, 3]
    assert several[1]["text"] == "7"


def test_a_file_with_too_many_pages_is_refused() -> None:
    for kind in ("TIFF", "PDF"):
        file = pages(kind, *[Image.new("1", (8, 8))] * 51)
        with pytest.raises(PictureError, match="more than 50 pages") as refusal:
            prepare([file], ["image"])
        assert refusal.value.kind == "large"


def test_reduced_copies_of_a_tiffs_page_are_no_pages() -> None:
    whole, reduced = seven(), seven().resize((40, 40))
    reduced.encoderinfo = {"tiffinfo": {254: 1}}
    file = BytesIO()
    whole.save(file, "TIFF", save_all=True, append_images=[reduced])
    assert open_picture(file.getvalue(), "image").pages == 1


@pytest.mark.parametrize("bits", range(9, 17))
def test_of_many_bits_the_range_that_occurs_is_used(bits: int, client: FlaskClient) -> None:
    values = np.asarray(seven(), np.float32) / 255 * (2**bits - 1)
    file = saved(Image.fromarray(values.astype(np.uint16)), "PNG")
    assert client.post("/predict", data=file, content_type="image/png").json["predicted_digit"] == 7


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_ink_of_the_papers_brightness_is_told_by_its_colour(mode: str, client: FlaskClient) -> None:
    # both have a brightness of 140
    ink = np.asarray(seven(), np.float32)[..., None] / 255
    colours = ink * np.array([40, 193, 125]) + (1 - ink) * np.array([230, 100, 109])
    file = saved(Image.fromarray(colours.astype(np.uint8)).convert(mode), "PNG")
    assert client.post("/predict", data=file, content_type="image/png").json["predicted_digit"] == 7


def test_a_channel_of_transparency_that_is_empty_is_ignored() -> None:
    grey = seven()
    empty = Image.merge("LA", (grey, Image.new("L", grey.size, 0)))
    found = decode_grey(open_picture(saved(empty, "PNG"), "image").picture, "image")
    assert np.array_equal(found, np.asarray(grey))


def test_damaged_exif_data_does_not_matter() -> None:
    junk = saved(seven(), "JPEG", exif=b"Exif\0\0" + bytes(range(200)))
    assert prepare([junk], ["image"]).any()


def test_an_incomplete_file_is_called_incomplete() -> None:
    file = saved(number(), "JPEG", quality=95)
    with pytest.raises(PictureError, match="the end of the file is missing"):
        prepare([file[: len(file) // 2]], ["image"])


def test_an_icon_with_a_huge_picture_is_limited_like_any_other() -> None:
    inner = saved(Image.new("L", (10_000, 9000), 255), "PNG")
    entry = bytes([16, 16, 0, 0, 1, 0, 32, 0]) + len(inner).to_bytes(4, "little") + (22).to_bytes(4, "little")
    with pytest.raises(PictureError) as refusal:
        prepare([b"\0\0\1\0\1\0" + entry + inner], ["image"])
    assert refusal.value.kind == "large"
