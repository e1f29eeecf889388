"""The detector's files, network and versions, and its reload."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from digits.detector import SCORE, Detector, X, Y
from digits.imaging.contrast import normalize
from digits.model import ModelError, load
from pictures import encoded, number
from project import ROOT, SAMPLE
from service import Server

SHIPPED = ROOT / "models" / "detector.h5"
SUFFIXES = (".h5", ".tflite", ".json")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Copies the three files of the shipped detector, and returns the path of the .h5."""
    for suffix in SUFFIXES:
        shutil.copy(SHIPPED.with_suffix(suffix), tmp_path / f"detector{suffix}")
    return tmp_path / "detector.h5"


def test_the_shipped_detector_belongs_to_its_card_and_has_at_most_two_megabytes() -> None:
    model = load(SHIPPED)
    assert Detector(model).version == model.card["version"] == model.version
    assert len(model.compiled) <= 2_000_000


def test_another_network_is_refused() -> None:
    with pytest.raises(ModelError, match=r"its shapes must be .*32"):
        Detector(load(ROOT / "models" / "mnist.h5"))


def test_a_damaged_network_is_refused() -> None:
    model = load(SHIPPED)
    with pytest.raises(ModelError, match="can't be run"):
        Detector(replace(model, compiled=model.compiled[: len(model.compiled) // 2]))


def test_files_that_do_not_belong_together_are_refused(files: Path) -> None:
    files.with_suffix(".tflite").write_bytes(b"another network")
    with pytest.raises(ModelError, match=r"detector\.tflite was not compiled from this detector\.h5"):
        load(files)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (500, 900)])
def test_a_picture_of_any_size_is_examined_once(size: tuple[int, int]) -> None:
    grey = np.full(size, 200, np.uint8)
    found, spent = Detector(load(SHIPPED)).detect(grey)
    assert len(found) == 0
    assert grey.size <= spent < 1.5 * grey.size + 20_000


def test_only_places_worth_a_look_are_examined_up_to_the_limit() -> None:
    detector, page = Detector(load(SHIPPED)), np.full((1000, 1000), 255, np.uint8)
    digits = np.asarray(number("25"))
    for corner in (0, 1000 - digits.shape[0]):
        page[corner : corner + digits.shape[0], corner : corner + digits.shape[1]] = digits[
            :, : 1000 - corner
        ]

    def where(places: list[list[float]], most: float = np.inf) -> tuple[set[bool], int]:
        found, spent = detector.detect(page, places=np.array(places), most=most)
        return {bool(y > 500) for y in found[found[:, SCORE] > 0.5, Y]}, spent

    assert detector.detect(page, places=np.zeros((0, 3)))[1] == 0
    both = [[10, 10, 1], [990, 990, 2]]
    assert where(both[:1])[0] == {False}
    everywhere, spent = where(both)
    assert everywhere == {False, True}
    # what is worth most comes first
    lower, less = where(both, spent - 1)
    assert lower == {True}
    assert 0 < less < spent


def test_a_margin_only_shows_the_light() -> None:
    detector, page = Detector(load(SHIPPED)), np.asarray(number("2023"))
    whole = detector.detect(page)[0]
    inner = detector.detect(np.pad(page, 48, mode="edge"), margin=48)[0]
    sure = [found[found[:, SCORE] > 0.5] for found in (whole, inner)]
    assert len(sure[0]) == len(sure[1])
    assert np.abs(sure[0][:, X] - sure[1][:, X]).max() < 3


def test_normalizing_removes_the_background_and_equalizes_the_contrast() -> None:
    picture = np.asarray(number("2023"))
    one, other = normalize(picture), normalize((128 + picture * 0.2).astype(np.uint8))
    assert one.dtype == np.float32
    assert one.shape == picture.shape
    assert one.min() >= -1.5
    assert one.max() <= 2.5
    ink = picture < 100
    assert np.abs(one - other)[ink].mean() < 0.3 * np.abs(one[ink]).mean()
    assert np.abs(normalize(np.full((40, 60), 7, np.uint8))).max() < 1e-3


def test_a_detector_that_cannot_be_served_prevents_the_start_with_a_reason(
    files: Path, start: Callable[..., Server]
) -> None:
    files.write_bytes(b"not a model")
    server = start(wait=False, DIGITS_DETECTOR=str(files))
    assert server.process.wait(60) == 1
    assert any(line["level"] == "CRITICAL" and "not an HDF5 file" in line["message"] for line in server.log())


def test_sighup_loads_a_new_detector_and_keeps_the_old_one_if_the_new_is_bad(
    files: Path, start: Callable[..., Server]
) -> None:
    server = start(DIGITS_DETECTOR=str(files))
    old = server.ask("/model").json["detector"]["version"]
    contents = {suffix: files.with_suffix(suffix).read_bytes() for suffix in SUFFIXES}
    for suffix in SUFFIXES:
        files.with_suffix(suffix).write_bytes(b"broken")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: any("keeping the old detector" in line["message"] for line in server.log()))
    picture = encoded(number("4725"))
    assert server.ask("/read", picture, Content_Type="image/png").headers["x-model-version"] == old

    # HDF5 ignores the bytes that follow
    h5 = contents[".h5"] + b"\0"
    new = hashlib.sha256(h5).hexdigest()
    files.write_bytes(h5)
    files.with_suffix(".tflite").write_bytes(contents[".tflite"])
    card = json.loads(contents[".json"]) | {"h5_sha256": new, "version": new[:12]}
    files.with_suffix(".json").write_text(json.dumps(card))
    classifier = server.ask("/predict", SAMPLE).headers["x-model-version"]
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.ask("/model").json["detector"]["version"] == new[:12])
    assert server.ask("/predict", SAMPLE).headers["x-model-version"] == classifier
    wait_for(lambda: new[:12] in server.ask("/metrics").body.decode())


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
