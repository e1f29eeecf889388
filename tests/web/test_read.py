"""POST /read: the inputs that it accepts and refuses, its answers, metrics and log lines. `make eval` measures
how well numbers are read."""

from __future__ import annotations

import base64
import concurrent.futures
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app import create_app
from digits.web.settings import Settings
from pictures import MARGIN, SIDE, STEP, encoded, form, number, png_header, scene
from project import ROOT, SAMPLE
from service import Server, samples

NUMBER = encoded(number("4725"))


@pytest.fixture(scope="module")
def client() -> Any:
    """A test client for many requests, with a small limit on batches."""
    return create_app(Settings(max_batch=3, max_body_bytes=1 << 20)).test_client()


def read(client: Any, picture: bytes, query: str = "") -> Any:
    answer = client.post(f"/read{query}", data=picture, content_type="image/png")
    assert answer.status_code == 200, answer.text
    return answer.json


@pytest.mark.shipped_model
def test_the_page_on_read_gives_the_shipped_detectors_answer_to_the_sample(server: Server) -> None:
    page = (ROOT / "docs" / "read.md").read_text()
    (path,) = re.findall(r"@(\S+\.png)", page)
    answer = server.ask("/read", (ROOT / path).read_bytes(), Content_Type="image/png").json
    (line,) = answer["lines"]
    text, probability = re.findall(r'"lines":\[\{"text":"(\d+)","probability":([\d.]+)', page)[0]
    assert text == line["text"]
    assert float(probability) == pytest.approx(line["probability"], abs=1e-3)


def test_the_digits_of_a_picture_are_returned_line_by_line_with_their_boxes(server: Server) -> None:
    picture = number("40725", "316")
    answer = server.ask("/read", encoded(picture), Content_Type="image/png")
    assert answer.status == 200
    assert answer.headers["x-model-version"] == server.ask("/model").json["detector"]["version"]
    reading = answer.json
    assert reading["text"] == "40725\n316"
    assert [line["text"] for line in reading["lines"]] == ["40725", "316"]
    assert reading["marks"] == []
    assert reading["size"] == list(picture.size)
    for row, line in enumerate(reading["lines"]):
        assert line.keys() == {"text", "probability", "unsure", "words", "digits"}
        assert 0 <= line["probability"] <= 1
        assert "".join(str(digit["digit"]) for digit in line["digits"]) == line["text"]
        for column, digit in enumerate(line["digits"]):
            assert digit.keys() == {"digit", "probability", "unsure", "box"}
            left, top = MARGIN + STEP * column, MARGIN + 2 * STEP * row
            ink = 255 - np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)))
            ys, xs = np.nonzero(ink > 128)
            x, y, width, height = digit["box"]
            expected = (left + xs.min(), top + ys.min(), left + xs.max() + 1, top + ys.max() + 1)
            assert np.abs(np.subtract((x, y, x + width, y + height), expected)).max() <= 4


def test_json_and_forms_are_accepted_and_several_pictures_get_a_list(client: Any) -> None:
    text = base64.b64encode(NUMBER).decode()
    alone = read(client, NUMBER)
    assert alone["text"] == "4725"
    for image in (text, f"data:image/png;base64,{text}"):
        assert client.post("/read", json={"image": image}).json == alone
    other = encoded(number("31"))
    both = {"images": [text, base64.b64encode(other).decode()]}
    body, kind = form(("file", NUMBER), ("file", other))
    for answer in (client.post("/read", json=both), client.post("/read", data=body, content_type=kind)):
        assert [reading["text"] for reading in answer.json["readings"]] == ["4725", "31"]
    body, kind = form(("file", NUMBER))
    assert client.post("/read", data=body, content_type=kind).json == alone


@pytest.mark.parametrize(
    ("body", "field", "found"),
    [
        (SAMPLE, "image", "pixels"),
        ({"images": [SAMPLE["image"]]}, "images[0]", "pixels"),
        ({"image": [[0] * 28] * 27}, "image", "pixels"),
        ({"image": []}, "image", "an empty list"),
        ({"images": [base64.b64encode(NUMBER).decode(), SAMPLE["image"]]}, "images[1]", "pixels"),
        (bytes(784), "the body", "application/octet-stream"),
    ],
    ids=["pixels", "several", "other pixels", "no pixels", "pictures and pixels", "raw pixels"],
)
def test_pixels_are_refused_with_a_reference_to_predict(
    client: Any, body: Any, field: str, found: str
) -> None:
    sent = (
        {"data": body, "content_type": "application/octet-stream"}
        if isinstance(body, bytes)
        else {"json": body}
    )
    answer = client.post("/read", **sent)
    assert answer.status_code == 422
    assert (answer.json["field"], answer.json["found"]) == (field, found)
    assert "For pixels use POST /predict" in answer.json["detail"]


def test_pictures_that_predict_refuses_are_refused(client: Any) -> None:
    assert client.post("/read", data=b"{", content_type="application/json").status_code == 400
    assert client.post("/read", json={"images": ["AAAA"] * 4}).status_code == 413
    assert client.post("/read", data=b"no picture", content_type="image/png").status_code == 415
    answer = client.post("/read", data=b"x", content_type="text/plain")
    assert answer.status_code == 415
    assert "application/octet-stream" not in answer.json["accepted"]
    assert client.post("/read", json={"image": None}).json["found"] == "null"
    answer = client.post("/read", data=NUMBER, content_type="application/octet-stream")
    assert (answer.status_code, answer.json["found"]) == (415, "image/png")
    assert client.post("/read", data=NUMBER[:200], content_type="image/png").status_code == 422


def test_the_total_size_of_pictures_is_limited(client: Any) -> None:
    body, kind = form(*[("file", png_header(5000, 5000))] * 3)
    answer = client.post("/read", data=body, content_type=kind)
    assert answer.status_code == 413
    assert "in total" in answer.json["detail"]


def test_an_empty_picture_has_no_text(client: Any) -> None:
    empty = encoded(Image.new("L", (100, 80), 255))
    assert read(client, empty) == {"text": "", "lines": [], "marks": [], "size": [100, 80]}


def test_boxes_refer_to_the_picture_after_its_rotation(client: Any) -> None:
    upright, exif = number("4725"), Image.Exif()
    exif[0x0112] = 6
    lying = encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert read(client, lying) == read(client, encoded(upright))


def test_lines_have_the_requested_length(client: Any) -> None:
    assert read(client, NUMBER, "?length=4")["text"] == "4725"
    (line,) = read(client, NUMBER, "?length=3")["lines"]
    assert len(line["text"]) == len(line["digits"]) == 3
    assert line["unsure"]


def test_alternatives_are_listed_if_requested(client: Any) -> None:
    (line,) = read(client, NUMBER, "?alternatives=3")["lines"]
    others = line["alternatives"]
    assert 1 <= len(others) <= 3
    shares = [line["probability"], *(other["probability"] for other in others)]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1 + 1e-5
    assert line["text"] not in {other["text"] for other in others}


@pytest.mark.parametrize(
    "query",
    [
        *(
            "length=0",
            "length=51",
            "length=-1",
            "length=x",
            "length=",
            "length=%D9%A3",
            "length=" + "9" * 5000,
        ),
        *("check=", "check=isbn", "check=%ff", "alternatives=0", "alternatives=11", "alternatives=1.5"),
        *("columns=0", "columns=2", "columns=true", "page_image=0"),
    ],
    ids=lambda query: query[:20],
)
def test_an_invalid_option_is_422(client: Any, query: str) -> None:
    answer = client.post(f"/read?{query}", data=NUMBER, content_type="image/png")
    assert answer.status_code == 422
    assert answer.json["field"] == query.split("=")[0]
    assert len(answer.json["found"]) <= 40


def test_words_have_a_column_if_requested(client: Any) -> None:
    table = encoded(number("20  31", "85  72"))
    assert all("column" not in word for line in read(client, table)["lines"] for word in line["words"])
    rows = read(client, table, "?columns=1")["lines"]
    found = [[(word["text"], word["column"]) for word in row["words"]] for row in rows]
    assert found == [[("20", 0), ("31", 1)], [("85", 0), ("72", 1)]]


def test_the_pages_are_returned_if_requested(client: Any) -> None:
    small, file = number("20"), io.BytesIO()
    pages = [small, small.resize((2000, 2000 * small.height // small.width))]
    pages[0].save(file, "PDF", save_all=True, append_images=pages[1:])
    readings = read(client, file.getvalue(), "?page_image=1")["readings"]
    for reading in readings:
        head, text = reading["page_image"].split(",")
        shown = Image.open(io.BytesIO(base64.b64decode(text)))
        assert head == "data:image/jpeg;base64"
        assert max(shown.size) == min(1600, max(reading["size"]))
        # the boxes of `size` fit it
        scale = shown.width / reading["size"][0]
        for digit in reading["lines"][0]["digits"]:
            x, y, width, height = (side * scale for side in digit["box"])
            assert np.asarray(shown.crop((x, y, x + width, y + height))).min() < 100
        assert np.asarray(shown)[0, 0] > 200
    assert all("page_image" not in each for each in read(client, file.getvalue())["readings"])


def test_an_option_of_predict_is_ignored_like_an_unknown_one(client: Any) -> None:
    for query in ("?prepare=none", "?prepare=foo", "?detail=2", "?foo=bar"):
        assert read(client, NUMBER, query)["text"] == "4725"


def test_readings_are_counted_timed_and_logged(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    def counts() -> dict[str, float]:
        return samples(client.get("/metrics").text)

    before = counts()
    text = base64.b64encode(NUMBER).decode()
    with caplog.at_level("INFO", "digits.request"):
        reading = client.post("/read", json={"images": [text] * 2}).json["readings"][0]
    after = counts()
    for name, more in (
        ("digits_read_digits_total", 8),
        ("digits_read_find_seconds_count", 2),
        ("digits_read_inference_seconds_count", 2),
        # this metric is only for POST /predict
        ("digits_probability_count", 0),
    ):
        assert after[name] - before[name] == more, name
    (line,) = [record.__dict__ for record in caplog.records if record.name == "digits.request"][:1]
    unsure = 2 * reading["lines"][0]["unsure"]
    found = {"images": 2, "lines": 2, "digits": 8, "unsure": unsure, "route": "/read"}
    assert found.items() <= line.items()


def test_an_unsure_pictures_answer_links_to_read(client: Any) -> None:
    def link(**sent: Any) -> str | None:
        answer = client.post("/predict", **sent)
        assert answer.json.keys() <= {"predicted_digit", "predicted_probability", "unsure", "predictions"}
        return answer.headers.get("Link")

    assert link(data=NUMBER, content_type="image/png") == '<read>; rel="related"'
    one, several = (base64.b64encode(picture).decode() for picture in (encoded(scene()), NUMBER))
    assert link(json={"images": [one, several]}) == '<read>; rel="related"'
    assert link(data=encoded(scene()), content_type="image/png") is None
    # pixels show a single digit, and /read would refuse them
    assert link(json={"image": [[128, 0] * 14] * 28}) is None


@pytest.mark.e2e
def test_long_readings_do_not_delay_predictions(start: Any) -> None:
    server = start(WEB_CONCURRENCY="1", DIGITS_PROCESSES="1", DIGITS_MAX_WAIT_MS="2000")
    page = encoded(number(*["4072531698" * 4] * 12))
    seven = encoded(scene())
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        pending = [pool.submit(server.ask, "/read", page, Content_Type="image/png") for _ in range(5)]
        while not all(reading.done() for reading in pending):
            assert server.ask("/predict", seven, Content_Type="image/png").status == 200
            assert server.ask("/predict", SAMPLE).status == 200
    answers = [reading.result() for reading in pending]
    assert 200 in {answer.status for answer in answers}
    for answer in answers:
        assert answer.status == 200 or (answer.status, answer.headers["retry-after"]) == (503, "1")


PICTURES = [encoded(number("72").convert("RGB"), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP")]
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8)
QUERY = st.dictionaries(
    st.sampled_from(["length", "check", "alternatives", "columns"]),
    st.integers(-1, 60).map(str) | st.just("luhn") | st.text(max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PICTURES), CHANGES, st.floats(0.5, 1), QUERY)
def test_any_picture_and_query_is_a_reading_or_4xx(
    client: Any, whole: bytes, changes: list[tuple[float, int]], cut: float, query: dict[str, str]
) -> None:
    content = bytearray(whole)
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    answer = client.post(
        "/read", data=bytes(content[: int(len(content) * cut)]), query_string=query, content_type="image/png"
    )
    check(answer)


def check(answer: Any) -> Any:
    """The reading, after checking that it is complete, or None for a problem."""
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.content_type == "application/problem+json"
        return None
    reading = json.loads(answer.data, parse_constant=pytest.fail)
    assert reading["text"] == "\n".join(line["text"] for line in reading["lines"])
    for line in reading["lines"]:
        assert line["text"]
        assert " ".join(word["text"] for word in line["words"]) == line["text"]
        for word in line["words"]:
            assert "".join(str(digit["digit"]) for digit in word["digits"]) == word["text"]
        assert [digit for word in line["words"] for digit in word["digits"]] == line["digits"]
        assert all(0 <= part["probability"] <= 1 for part in (line, *line["digits"]))
    return reading
