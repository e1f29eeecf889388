"""Pictures, forms, raw pixels and base64 in POST /predict with a real server, and their limits."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from api_checks import unless_refused
from app import create_app
from digits.web.bodies import from_json, from_raw, to_batch
from digits.web.settings import Settings
from pictures import SEVEN, encoded, form, large, png_header, scene
from project import SAMPLE
from service import Server


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_of_several_frames_is_read(server: Server, kind: str) -> None:
    rest = [Image.new("RGB", (300, 220), level) for level in ("white", "black")]
    moving = encoded(scene().convert("RGB"), kind, save_all=True, append_images=rest)
    answer = server.ask("/predict", moving, Content_Type=f"image/{kind.lower()}")
    assert answer.status == 200
    assert answer.json["predicted_digit"] == 7


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_picture_is_422(server: Server, level: int) -> None:
    answer = server.ask("/predict", encoded(Image.new("L", (100, 80), level)), Content_Type="image/png")
    assert answer.status == 422
    assert answer.json["found"] == "an empty picture"


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


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("size", [(4962, 7014), (8160, 6120)], ids=["A4 at 600 dpi", "50 megapixels"])
def test_a_scan_and_a_phones_photo_are_read(
    server: Server, size: tuple[int, int], options: dict[str, Any]
) -> None:
    answer = server.ask("/predict", large(size, "JPEG", "RGB", **options), Content_Type="image/jpeg")
    assert answer.status == 200
    assert answer.json["predicted_digit"] == 7


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_picture_is_4xx(server: Server, kind: str) -> None:
    whole = encoded(scene().convert("RGB"), kind)
    for share in (0.02, 0.3, 0.8):
        answer = server.ask("/predict", whole[: int(len(whole) * share)], Content_Type="image/png")
        assert answer.status in (415, 422), (share, answer.body)
        assert answer.headers["content-type"] == "application/problem+json"


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
        batch = unless_refused(lambda: to_batch(from_json(json.dumps(document).encode()))[0])
    assert batch is None or batch.shape[1:] == (28, 28, 1)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_are_a_batch_or_a_problem(app: Flask, body: bytes) -> None:
    with app.app_context():
        unless_refused(from_json, body)
        raw = unless_refused(from_raw, body)
    assert (raw is not None) == (len(body) % 784 == 0 and len(body) > 0)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 781), st.floats(0, 255, width=32) | st.integers(0, 255), max_size=20))
def test_any_image_of_numbers_is_scaled_exactly(app: Flask, pixels: dict[int, float]) -> None:
    # with one black and one white pixel, so that it is not blank
    flat = [*(pixels.get(i, 0) for i in range(782)), 0, 255]
    with app.app_context():
        items = from_json(json.dumps({"image": flat}).encode())
        batch, single = to_batch(items)[0], items.single
    assert single
    np.testing.assert_array_equal(batch.ravel(), np.array(flat, np.float32) / np.float32(255))
