"""Pictures, forms, raw pixels and base64 in POST /predict with a real server, and their limits."""

from __future__ import annotations

import base64
import functools
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFile, ImageFilter, ImageOps

from app import create_app
from digits.detector import Detector
from digits.imaging import CostlyPictures, PictureError, prepare, prepare_pages
from digits.model import Classifier, load, scale
from digits.reading.single import locate
from digits.web.bodies import from_json, from_raw, to_batch
from digits.web.problems import Problem
from digits.web.settings import ROOT, Settings
from pictures import SEVEN, encoded, form, png_header, scene
from project import SAMPLE
from service import Server


@cache
def models() -> tuple[Classifier, Detector]:
    folder = ROOT / "models"
    return Classifier(load(folder / "mnist.h5")), Detector(load(folder / "detector.h5"))


def prepared(picture: bytes) -> np.ndarray:
    return prepare([picture], ["image"], locate=partial(locate, models()[1]))[0]


def digit(picture: bytes) -> int:
    return int(models()[0].probabilities(scale(prepared(picture)[None])).argmax())


@pytest.mark.parametrize(
    ("kind", "content_type", "mode"),
    [
        ("PNG", "image/png", "L"),
        ("JPEG", "image/jpeg", "RGB"),
        ("WEBP", "image/webp", "RGB"),
        ("BMP", "image/bmp", "L"),
        ("GIF", "image/gif", "P"),
        ("TIFF", "image/tiff", "L"),
    ],
)
@pytest.mark.parametrize("dark", [True, False], ids=["dark on light", "light on dark"])
def test_every_format_is_read(server: Server, kind: str, content_type: str, mode: str, dark: bool) -> None:
    answer = server.ask("/predict", encoded(scene(dark).convert(mode), kind), Content_Type=content_type)
    assert answer.status == 200
    assert answer.json.keys() == {"predicted_digit", "predicted_probability", "unsure"}
    assert answer.json["predicted_digit"] == 7


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


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_of_several_frames_is_read(server: Server, kind: str) -> None:
    rest = [Image.new("RGB", (300, 220), level) for level in ("white", "black")]
    moving = encoded(scene().convert("RGB"), kind, save_all=True, append_images=rest)
    answer = server.ask("/predict", moving, Content_Type=f"image/{kind.lower()}")
    assert answer.status == 200
    assert answer.json["predicted_digit"] == 7


def test_the_result_has_mnists_form() -> None:
    image = prepare([encoded(scene())], ["image"])[0]
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    assert max(rows[-1] - rows[0], columns[-1] - columns[0]) < 20
    mass = image / image.sum()
    assert abs((mass.sum(0) * np.arange(28)).sum() - 13.5) <= 0.6
    assert abs((mass.sum(1) * np.arange(28)).sum() - 13.5) <= 0.6


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_picture_is_422(server: Server, level: int) -> None:
    answer = server.ask("/predict", encoded(Image.new("L", (100, 80), level)), Content_Type="image/png")
    assert answer.status == 422
    assert answer.json["found"] == "an empty picture"


def test_noise_alone_is_not_a_digit() -> None:
    noise = np.random.default_rng(1).normal(128, 10, (200, 200)).clip(0, 255).astype(np.uint8)
    with pytest.raises(PictureError, match="shows no digit"):
        prepare([encoded(Image.fromarray(noise))], ["image"])


def test_a_form_with_one_file_gets_one_answer_and_with_more_a_list(server: Server) -> None:
    picture = encoded(scene())
    body, kind = form(("file", picture))
    assert server.ask("/predict", body, Content_Type=kind).json["predicted_digit"] == 7
    body, kind = form(("file", picture), ("file", encoded(scene(False))), ("other", picture))
    answer = server.ask("/predict", body, Content_Type=kind)
    assert [a["predicted_digit"] for a in answer.json["predictions"]] == [7, 7, 7]


def test_a_form_may_have_as_many_files_as_a_batch(server: Server) -> None:
    most = Settings().max_batch
    picture = encoded(Image.fromarray(SEVEN), "PNG")
    body, kind = form(*[("file", picture)] * most)
    answer = server.ask("/predict?prepare=none", body, Content_Type=kind)
    assert answer.status == 200
    assert [a["predicted_digit"] for a in answer.json["predictions"]] == [7] * most
    body, kind = form(*[("file", picture)] * (most + 1))
    answer = server.ask("/predict?prepare=none", body, Content_Type=kind)
    assert answer.status == 413
    assert answer.json["detail"] == f"At most {most} images are accepted per request."


def test_a_small_batch_limit_leaves_room_for_a_forms_other_fields() -> None:
    client = create_app(Settings(max_batch=1)).test_client()
    body, kind = form(("file", encoded(scene())))
    field = b'--frontier\r\nContent-Disposition: form-data; name="note"\r\n\r\nx\r\n'
    answer = client.post("/predict", data=field * 20 + body, content_type=kind)
    assert answer.json["predicted_digit"] == 7


def test_a_bad_file_in_a_form_is_named(server: Server) -> None:
    body, kind = form(("file", encoded(scene())), ("file", b"no picture"))
    answer = server.ask("/predict", body, Content_Type=kind)
    assert answer.status == 415
    assert answer.json["field"] == "file (1)"
    body, kind = form()
    assert server.ask("/predict", body, Content_Type=kind).status == 422


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:-30],
        lambda body: body.replace(b"frontier", b"elsewhere"),
        lambda body: body.replace(b'name="file"', b'name="gr\xf6\xdfe"'),
        lambda body: b"",
    ],
    ids=["truncated", "another boundary", "a Latin-1 name", "empty"],
)
def test_a_malformed_form_is_not_taken_for_one_without_files(
    server: Server, change: Callable[[bytes], bytes]
) -> None:
    body, kind = form(("file", encoded(scene())))
    for path in ("/predict", "/read", "/invocations"):
        answer = server.ask(path, change(body), Content_Type=kind)
        assert answer.status == 400
        assert "not valid multipart/form-data" in answer.json["detail"]


@pytest.mark.parametrize(("count", "size"), [(1, 600_000), (2100, 1)])
def test_a_form_with_large_or_many_fields_is_not_called_a_large_body(
    server: Server, count: int, size: int
) -> None:
    body, kind = form(*[("file", bytes(size))] * count)
    for path in ("/predict", "/read"):
        answer = server.ask(path, body.replace(b'; filename="x"', b""), Content_Type=kind)
        assert answer.status == 413
        assert answer.json["detail"].endswith("Send pictures as files.")


@pytest.mark.parametrize(
    ("name", "field", "subject"),
    [
        ("", "file", "The field file"),
        ("n" * 5000, "n" * 80, f"The field {'n' * 80}"),
        ("7", "7", "The field 7"),
    ],
)
def test_any_name_of_a_forms_field_leads_to_a_readable_error(
    server: Server, name: str, field: str, subject: str
) -> None:
    body, kind = form((name, b"no picture"))
    answer = server.ask("/predict", body, Content_Type=kind)
    assert (answer.status, answer.json["field"]) == (415, field)
    assert answer.json["detail"].startswith(f"{subject} is not a picture")


def test_an_empty_picture_file_is_reported_as_empty(server: Server) -> None:
    for path in ("/predict", "/read", "/invocations"):
        answer = server.ask(path, b"", Content_Type="image/png")
        assert (answer.status, answer.json["detail"]) == (422, "The body is empty.")
        for image in ("", "data:image/png;base64,"):
            answer = server.ask(path, {"image": image})
            assert (answer.status, answer.json["detail"]) == (422, "The field image is empty.")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "The body is empty, but must be JSON."),
        (b" \n", "The body is empty, but must be JSON."),
        (json.dumps(SAMPLE).encode("utf-16"), "The body is not valid JSON: it is not UTF-8."),
        (b"\x89PNG\r\n\x1a\n", "The body is not valid JSON: it is not UTF-8."),
    ],
    ids=["empty", "blank", "UTF-16", "a picture"],
)
def test_a_body_that_is_not_json_is_400(server: Server, body: bytes, detail: str) -> None:
    for path in ("/predict", "/read", "/invocations"):
        answer = server.ask(path, body, Content_Type="application/json")
        assert (answer.status, answer.json["detail"]) == (400, detail)


def test_json_may_begin_with_a_byte_order_mark(server: Server) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(SAMPLE).encode()
    assert server.ask("/predict", body, Content_Type="application/json").json["predicted_digit"] == 7


def test_raw_pixels_get_the_same_answer_as_json(server: Server) -> None:
    one = server.ask("/predict", SEVEN.tobytes(), Content_Type="application/octet-stream")
    assert one.json == server.ask("/predict", SAMPLE).json
    many = server.ask("/predict", SEVEN.tobytes() * 3, Content_Type="application/octet-stream")
    assert [a["predicted_digit"] for a in many.json["predictions"]] == [7, 7, 7]


@pytest.mark.parametrize(("length", "status"), [(0, 422), (783, 422), (785, 422), (784 * 1025, 413)])
def test_raw_pixels_of_another_length_are_refused(server: Server, length: int, status: int) -> None:
    answer = server.ask("/predict", bytes(length), Content_Type="application/octet-stream")
    assert answer.status == status
    assert answer.json["found"]


def test_base64_and_data_urls_are_read(server: Server) -> None:
    text = base64.b64encode(encoded(scene())).decode()
    for image in (text, f"data:image/png;base64,{text}", f"\n  data:image/png;base64,\n{text}\n"):
        assert server.ask("/predict", {"image": image}).json["predicted_digit"] == 7
    answer = server.ask("/predict", {"images": [text, text]})
    assert [a["predicted_digit"] for a in answer.json["predictions"]] == [7, 7]


@pytest.mark.parametrize(
    ("document", "status", "field"),
    [
        ({"image": "not base64!"}, 422, "image"),
        ({"image": "data:image/png,raw"}, 422, "image"),
        ({"image": base64.b64encode(b"no picture").decode()}, 415, "image"),
        ({"images": [base64.b64encode(encoded(scene())).decode(), SAMPLE["image"]]}, 422, "images"),
        ({"images": [base64.b64encode(encoded(scene())).decode(), None]}, 422, "images[1]"),
    ],
)
def test_strings_that_are_not_pictures_are_refused(
    server: Server, document: dict[str, Any], status: int, field: str
) -> None:
    answer = server.ask("/predict", document)
    assert (answer.status, answer.json["field"]) == (status, field)


def test_prepare_none_uses_a_28x28_picture_unchanged(server: Server) -> None:
    picture = encoded(Image.fromarray(SEVEN))
    answer = server.ask("/predict?prepare=none&detail=1", picture, Content_Type="image/png")
    assert answer.json["image"] == SAMPLE["image"]
    assert server.ask("/predict?prepare=none", encoded(scene()), Content_Type="image/png").status == 422


def test_detail_adds_all_probabilities_and_the_networks_input(server: Server) -> None:
    answer = server.ask("/predict?detail=1", SAMPLE).json
    assert answer["image"] == SAMPLE["image"]
    assert len(answer["probabilities"]) == 10
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert max(answer["probabilities"]) == answer["predicted_probability"]
    many = server.ask("/predict?detail=1", {"images": [SAMPLE["image"]] * 2}).json["predictions"]
    assert many == [answer, answer]


@pytest.mark.parametrize("query", ["detail=2", "prepare=all"])
def test_an_unknown_option_is_422(server: Server, query: str) -> None:
    answer = server.ask(f"/predict?{query}", SAMPLE)
    assert answer.status == 422
    assert answer.json["field"] == query.split("=")[0]


@pytest.mark.parametrize(
    ("width", "height"),
    [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (10_001, 1), (8_001, 6_250), (11_000, 9_000)],
)
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    decoded: list[tuple[int, int]] = []
    load_of_pillow = ImageFile.ImageFile.load

    def load(picture: ImageFile.ImageFile) -> Any:
        decoded.append(picture.size)
        return load_of_pillow(picture)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    bomb = png_header(width, height, zlib.compress(bytes(1000)))
    answer = client.post("/predict", data=bomb, content_type="image/png")
    assert answer.status_code in (413, 415)
    assert not decoded
    assert client.post("/predict", data=encoded(scene()), content_type="image/png").status_code == 200
    assert set(decoded) == {scene().size}


def test_the_total_size_of_many_pictures_is_limited(server: Server) -> None:
    body, kind = form(*[("file", png_header(4000, 4000))] * 5)
    answer = server.ask("/predict", body, Content_Type=kind)
    assert answer.status == 413
    assert "in total" in answer.json["detail"]


@functools.cache
def large(size: tuple[int, int], kind: str, mode: str = "L", **options: Any) -> bytes:
    """A seven with thin strokes in the middle of a large picture."""
    width, height = size
    picture = Image.new("L", size, 235)
    pen = ImageDraw.Draw(picture)
    pen.line((0.4 * width, 0.3 * height, 0.6 * width, 0.3 * height), 20, width // 60)
    pen.line((0.6 * width, 0.3 * height, 0.48 * width, 0.7 * height), 20, width // 60)
    return encoded(picture.convert(mode), kind, **options)


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("size", [(4962, 7014), (8160, 6120)], ids=["A4 at 600 dpi", "50 megapixels"])
def test_a_scan_and_a_phones_photo_are_read(
    server: Server, size: tuple[int, int], options: dict[str, Any]
) -> None:
    answer = server.ask("/predict", large(size, "JPEG", "RGB", **options), Content_Type="image/jpeg")
    assert answer.status == 200
    assert answer.json["predicted_digit"] == 7


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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_picture_is_4xx(server: Server, kind: str) -> None:
    whole = encoded(scene().convert("RGB"), kind)
    for share in (0.02, 0.3, 0.8):
        answer = server.ask("/predict", whole[: int(len(whole) * share)], Content_Type="image/png")
        assert answer.status in (415, 422), (share, answer.body)
        assert answer.headers["content-type"] == "application/problem+json"


def test_other_formats_are_not_opened(server: Server) -> None:
    for kind in ("SGI", "EPS", "ICNS"):
        answer = server.ask("/predict", encoded(scene().convert("RGB"), kind), Content_Type="image/png")
        assert answer.status == 415
        assert "PNG" in answer.json["formats"]
    assert server.ask("/predict", b"x", Content_Type="image/svg+xml").status == 415


def never_but_problem(decode: Callable[..., Any], *args: Any) -> Any:
    """The result of `decode`, or None for a Problem with a 4xx status. Anything else fails the test."""
    try:
        return decode(*args)
    except PictureError:
        return None
    except Problem as problem:
        if not 400 <= problem.status < 500:
            raise
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
    image = never_but_problem(prepare, [bytes(content[: int(len(content) * cut)])], ["image"])
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
    image = never_but_problem(prepare, [encoded(picture)], ["image"])
    assert image is None or image.any()


@pytest.fixture(scope="module")
def app() -> Flask:
    """An app for tests that need no server."""
    return create_app(Settings())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.sampled_from(["image", "images"]), inner),
    max_leaves=40,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["image", "images", "x"]), JSON) | JSON)
def test_any_json_is_a_batch_or_a_problem(app: Flask, document: Any) -> None:
    with app.app_context():
        batch = never_but_problem(lambda: to_batch(from_json(json.dumps(document).encode(), 100)))
    assert batch is None or batch.shape[1:] == (28, 28, 1)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_are_a_batch_or_a_problem(body: bytes) -> None:
    never_but_problem(from_json, body, 100)
    raw = never_but_problem(from_raw, body, 100)
    assert (raw is not None) == (len(body) % 784 == 0 and len(body) > 0)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 781), st.floats(0, 255, width=32) | st.integers(0, 255), max_size=20))
def test_any_image_of_numbers_is_scaled_exactly(pixels: dict[int, float]) -> None:
    # with one black and one white pixel, so that it is not blank
    flat = [*(pixels.get(i, 0) for i in range(782)), 0, 255]
    items = from_json(json.dumps({"image": flat}).encode(), 1)
    batch, single = to_batch(items), items.single
    assert single
    np.testing.assert_array_equal(batch.ravel(), np.array(flat, np.float32) / np.float32(255))
