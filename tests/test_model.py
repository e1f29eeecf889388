"""Model files that are served or refused, and new models after SIGHUP."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from digits.compiling import load
from digits.model import BATCH_SIZE, Classifier, ModelError
from digits.web.service import warn_of_misreading
from digits.web.settings import Settings
from project import ROOT, SAMPLE
from service import Server

SHIPPED = Settings.from_env(os.environ).model
IMAGES = np.random.default_rng(7).random((3 * BATCH_SIZE + 5, 28, 28, 1), np.float32)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Copies the three files of the shipped model, and returns the path of the .h5."""
    for suffix in (".h5", ".tflite", ".json"):
        shutil.copy(SHIPPED.with_suffix(suffix), tmp_path / f"mnist{suffix}")
    return tmp_path / "mnist.h5"


def without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def test_the_shipped_model_loads_without_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    without_tensorflow(monkeypatch)
    model = load(SHIPPED)
    assert model.card["version"] == model.version


@pytest.mark.parametrize("n", [0, 1, 2, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1, 3 * BATCH_SIZE + 5])
def test_a_batch_gets_the_same_answers_as_single_images(n: int) -> None:
    classifier = Classifier(load(SHIPPED))
    together = classifier.probabilities(IMAGES[:n])
    assert together.shape == (n, 10)
    assert together.dtype == np.float32
    alone = [classifier.probabilities(image[None])[0] for image in IMAGES[:n]]
    np.testing.assert_allclose(together, np.reshape(alone, (n, 10)), atol=1e-5)


def test_threads_share_a_classifier() -> None:
    classifier = Classifier(load(SHIPPED))
    expected = classifier.probabilities(IMAGES)
    wrong: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            start = int(rng.integers(0, len(IMAGES) - 1))
            stop = int(rng.integers(start + 1, len(IMAGES)))
            if not np.allclose(classifier.probabilities(IMAGES[start:stop]), expected[start:stop], atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(("given", "threshold"), [({}, 0.5), ({"sure_threshold": 0.93}, 0.93)])
def test_the_threshold_comes_from_the_card(given: dict[str, float], threshold: float) -> None:
    card = {"version": "ab12"} | given
    assert Classifier(replace(load(SHIPPED), card=card)).sure_threshold == threshold


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), True, None, "0.9"])
def test_an_invalid_threshold_is_refused(value: Any) -> None:
    with pytest.raises(ModelError, match=r"sure_threshold .* must be a number from 0 to 1"):
        Classifier(replace(load(SHIPPED), card={"sure_threshold": value}))


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.h5 can't be read"):
        load(tmp_path / "none.h5")


def test_a_file_that_is_not_hdf5_is_refused(files: Path) -> None:
    files.write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(ModelError, match="not an HDF5 file"):
        load(files)


def test_a_tflite_that_does_not_match_is_not_served(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_tensorflow(monkeypatch)
    content = bytearray(files.with_suffix(".tflite").read_bytes())
    content[len(content) // 2] ^= 1
    monkeypatch.setattr("digits.model.SWAP_SECONDS", 0.0)
    files.with_suffix(".tflite").write_bytes(content)
    with pytest.raises(ModelError, match="needs TensorFlow"):
        load(files)


def test_files_that_are_being_swapped_are_waited_for(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_tensorflow(monkeypatch)
    right = files.with_suffix(".json").read_bytes()
    files.with_suffix(".json").write_bytes(json.dumps({"h5_sha256": "0" * 64}).encode())
    threading.Timer(0.5, files.with_suffix(".json").write_bytes, [right]).start()
    assert load(files).version == json.loads(right)["version"]


def test_a_network_of_another_shape_is_refused(files: Path) -> None:
    model = load(files)
    with pytest.raises(ModelError):
        Classifier(type(model)(model.compiled[: len(model.compiled) // 2], model.version, model.card))


def rewritten(files: Path, h5: bytes, tflite: bytes) -> None:
    """Write the three files with this content, in the order in which training does."""
    card = json.loads(files.with_suffix(".json").read_bytes())
    card |= {"h5_sha256": hashlib.sha256(h5).hexdigest(), "tflite_sha256": hashlib.sha256(tflite).hexdigest()}
    for suffix, content in ((".h5", h5), (".tflite", tflite), (".json", json.dumps(card).encode())):
        new = files.with_suffix(f"{suffix}.new")
        new.write_bytes(content)
        new.replace(files.with_suffix(suffix))


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_network_is_refused_even_if_its_hash_matches(files: Path, share: float) -> None:
    whole = files.with_suffix(".tflite").read_bytes()
    rewritten(files, files.read_bytes(), whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match="can't be run"):
        Classifier(load(files))


@pytest.mark.parametrize(
    "content", [b"\x80\x04cos\nsystem\n", b"\x80\x05\x95", b"PK\x03\x04", b"\x93NUMPY", b""]
)
def test_pickles_and_archives_are_never_opened(
    files: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tensorflow(monkeypatch)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", None)
    whole = files.read_bytes()
    rewritten(files, whole, content)
    with pytest.raises(ModelError, match="can't be run"):
        Classifier(load(files))
    rewritten(files, content, content)
    with pytest.raises(ModelError, match="not an HDF5 file"):
        load(files)


@pytest.mark.parametrize(
    "card",
    [b"", b"\xff", b"[" * 100_000, b'{"h5_sha256":NaN', b"[]", b"null", b'{"h5_sha256":["x"]}', b'"x"'],
)
def test_a_file_that_is_not_a_model_card_is_ignored(
    files: Path, card: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tensorflow(monkeypatch)
    monkeypatch.setattr("digits.model.SWAP_SECONDS", 0.0)
    files.with_suffix(".json").write_bytes(card)
    with pytest.raises(ModelError, match="no matching compiled form, and compiling needs TensorFlow"):
        load(files)
    compiled = files.parent / ".compiled"
    compiled.mkdir()
    sha256 = hashlib.sha256(files.read_bytes()).hexdigest()
    shutil.copy(files.with_suffix(".tflite"), compiled / f"{sha256}.tflite")
    assert load(files).card == {"name": "mnist", "version": sha256[:12], "h5_sha256": sha256}


def test_a_missing_tflite_is_compiled(
    files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("digits.model.SWAP_SECONDS", 0.0)
    monkeypatch.setattr("digits.compiling._compile", lambda path, h5, cached: b"compiled")
    files.with_suffix(".tflite").unlink()
    assert load(files).compiled == b"compiled"
    assert [record.reason for record in caplog.records] == ["there is no mnist.tflite"]  # type: ignore[attr-defined]


def test_a_model_that_misreads_the_sample_digits_gets_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = load(SHIPPED)
    own = {"name": "own", "version": model.version, "h5_sha256": model.card["h5_sha256"]}
    classifier = Classifier(replace(model, card=own))
    warn_of_misreading(classifier)
    assert caplog.messages == []
    # the input that a model with a Rescaling layer would see
    probabilities = classifier.probabilities
    classifier.probabilities = lambda images: probabilities(images / 255)  # type: ignore[method-assign]
    warn_of_misreading(classifier)
    (message,) = caplog.messages
    assert "of ten sample digits correctly" in message


@pytest.mark.parametrize("suffix", [".h5", ".tflite"])
def test_a_huge_file_is_not_read_completely(
    files: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = files.with_suffix(suffix).stat().st_size
    monkeypatch.setattr("digits.model.MAX_FILE_BYTES", max(f.stat().st_size for f in files.parent.iterdir()))
    load(files)
    monkeypatch.setattr("digits.model.MAX_FILE_BYTES", size - 1)
    with pytest.raises(ModelError, match=f"more than {size - 1} bytes"):
        load(files)


def test_the_served_bytes_are_the_hashed_ones_while_files_are_swapped(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tensorflow(monkeypatch)
    monkeypatch.setattr("digits.model.SWAP_SECONDS", 30.0)
    h5, tflite = files.read_bytes(), files.with_suffix(".tflite").read_bytes()
    rewritten(files, h5 + b"\0", tflite + b"\0")
    stop = threading.Event()

    def swap() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            tail = bytes([turn % 2])
            rewritten(files, h5 + tail, tflite + tail)
            time.sleep(0.004)

    thread = threading.Thread(target=swap)
    thread.start()
    versions = set()
    try:
        for _ in range(60):
            model = load(files)
            assert hashlib.sha256(model.compiled).hexdigest() == model.card["tflite_sha256"]
            assert model.card["h5_sha256"].startswith(model.version)
            # the same for both files
            assert hashlib.sha256(h5 + model.compiled[-1:]).hexdigest() == model.card["h5_sha256"]
            versions.add(model.version)
    finally:
        stop.set()
        thread.join()
    assert len(versions) == 2


def test_a_model_is_read_once(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_path = Path.open

    def counted(path: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(path.name)
        return open_path(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counted)
    model = load(files)
    for suffix in (".h5", ".tflite", ".json"):
        files.with_suffix(suffix).unlink()
    Classifier(model).probabilities(IMAGES)
    assert sorted(opened) == ["mnist.h5", "mnist.json", "mnist.tflite"]


def test_serving_imports_nothing_of_training_or_bulk() -> None:
    code = """
import sys
sys.argv = ["gunicorn", "app:app"]
from app import app
client = app.test_client()
import json
assert client.post("/predict", json=json.load(open("sample_request.json"))).json["predicted_digit"] == 7
others = {"digits.training", "digits.bulk", "tensorflow", "keras", "h5py", "dvc", "matplotlib", "dask", "pyarrow"}
assert not others & set(sys.modules), others & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def version_after(server: Server, expected: str, seconds: float = 10) -> str:
    deadline = time.monotonic() + seconds
    while True:
        version = server.ask("/predict", SAMPLE).headers["x-model-version"]
        if version == expected or time.monotonic() > deadline:
            return version
        time.sleep(0.05)


def test_a_custom_h5_is_compiled_at_the_first_start_and_then_cached(
    files: Path, start: Callable[..., Server]
) -> None:
    # its bytes don't match the card, and the .json next to it is not a card
    with h5py.File(files, "a") as file:
        file.attrs["note"] = "mine"
    files.with_suffix(".tflite").unlink()
    files.with_suffix(".json").write_text('{"epochs": [1, 2]}')
    server = start(DIGITS_MODEL=str(files))
    assert server.ask("/predict", SAMPLE).json["predicted_digit"] == 7
    compiled = list((files.parent / ".compiled").glob("*.tflite"))
    assert len(compiled) == 1
    before = compiled[0].stat().st_mtime_ns
    assert start(DIGITS_MODEL=str(files)).ask("/predict", SAMPLE).status == 200
    assert compiled[0].stat().st_mtime_ns == before


def test_a_model_that_cannot_be_served_prevents_the_start_with_a_reason(
    files: Path, start: Callable[..., Server]
) -> None:
    files.write_bytes(b"not a model")
    server = start(wait=False, DIGITS_MODEL=str(files))
    assert server.process.wait(20) == 1
    assert any(line["level"] == "CRITICAL" and "not an HDF5 file" in line["message"] for line in server.log())
    assert "Traceback" not in server.output.read_text()


def test_sighup_loads_a_new_model_and_keeps_the_old_one_if_the_new_is_bad(
    files: Path, start: Callable[..., Server]
) -> None:
    server = start(DIGITS_MODEL=str(files))
    old = server.ask("/predict", SAMPLE).headers["x-model-version"]
    h5, tflite, card = (files.with_suffix(suffix).read_bytes() for suffix in (".h5", ".tflite", ".json"))

    for suffix in (".h5", ".tflite", ".json"):
        files.with_suffix(suffix).write_bytes(b"broken")
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while not any("keeping the old model" in line["message"] for line in server.log()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while b"digits_model_reload_failures_total 1.0" not in server.ask("/metrics").body:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.ask("/predict", SAMPLE).headers["x-model-version"] == old

    files.with_suffix(".json").write_bytes(card)
    # HDF5 ignores the bytes that follow
    rewritten(files, h5 + b"\0", tflite)
    server.process.send_signal(signal.SIGHUP)
    new = hashlib.sha256(h5 + b"\0").hexdigest()[:12]
    assert version_after(server, new, 30) == new
    # the old workers wait a moment for requests that their clients may still send
    deadline = time.monotonic() + 30
    state = ("", 0, "")
    while state != ("", 2, "digits_workers 2.0") and time.monotonic() < deadline:
        time.sleep(0.1)
        metrics = server.ask("/metrics").body.decode()
        workers = re.findall(r"^digits_workers .*$", metrics, re.MULTILINE)
        state = (old if old in metrics else "", metrics.count("digits_model_info{"), *workers)
    assert state == ("", 2, "digits_workers 2.0")


@pytest.mark.shipped_model
def test_the_shipped_model_reads_mnist(mnist: dict[str, np.ndarray]) -> None:
    images = mnist["x_test"][..., None] / np.float32(255)
    found = Classifier(load(SHIPPED)).probabilities(images).argmax(1)
    accuracy = float((found == mnist["y_test"]).mean())
    assert accuracy >= 0.995
    card = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert accuracy == pytest.approx(card["test"]["accuracy"], abs=2e-4)


def test_compiled_and_h5_agree_on_all_test_images(mnist: dict[str, np.ndarray]) -> None:
    images = mnist["x_test"][..., None] / np.float32(255)
    # imports TensorFlow, which takes seconds
    import keras

    network = keras.models.load_model(SHIPPED, compile=False)
    lite = Classifier(load(SHIPPED)).probabilities(images)
    np.testing.assert_allclose(lite, network.predict(images, batch_size=500, verbose=0), atol=1e-5)
