"""The way of a correction: it is fetched, a network is trained with it, and the network replaces the old one only
if it is better. The test of the whole way takes minutes, and needs MNIST."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import candidate  # type: ignore[import-not-found]
import numpy as np
import pytest
from candidate import Compared
from PIL import Image

from digits.detector import Detector
from digits.imaging import prepare
from digits.model import Classifier, load, scale
from digits.reading import read
from digits.training import tracking
from digits.training.corrected import CORRECTIONS
from digits.training.corrections import NO_DIGIT, fetch, is_held_out, sheets
from digits.training.stage import StageError
from digits.web.store import Store
from pictures import MARGIN, SIDE, STEP, encoded, number
from pipeline import clone, run
from project import ROOT
from service import Server

SEVEN = (ROOT / "digits/web/static/samples/7.png").read_bytes()


def corrected(
    folder: Path, request_id: str, said: list[Any], *pictures: dict[str, Any], images: int = 0
) -> None:
    """Put a correction into a store. pictures: as the service keeps them, without their index and answer."""
    store, now = Store(str(folder), 1 << 30, 30), datetime.now(UTC).isoformat()
    known = [{"index": i, "answer": {}} | picture for i, picture in enumerate(pictures)]
    many = images or len(pictures)
    store.keep(
        {"request_id": request_id, "time": now, "route": "/predict", "images": many, "pictures": known}
    )
    assert store.correct(request_id, said, False, now)["status"] == 200


def read_of(picture: bytes, *boxes: list[int]) -> dict[str, Any]:
    """A picture whose digits POST /read found in the boxes."""
    answer = {"lines": [{"digits": [{"box": box} for box in boxes]}]}
    return {"picture": base64.b64encode(picture).decode(), "answer": answer}


def pixels_of(image: np.ndarray) -> dict[str, Any]:
    return {"pixels": base64.b64encode(image.tobytes()).decode()}


CLASSIFIER = Classifier(load(ROOT / "models" / "mnist.h5"))
DETECTOR = Detector(load(ROOT / "models" / "detector.h5"))
# what the network sees of a picture of a 7
SEEN = pixels_of(prepare([SEVEN], ["7"])[0])


def test_without_a_source_there_is_nothing(tmp_path: Path) -> None:
    arrays, problems = fetch("", 0.3)
    assert {name: len(array) for name, array in arrays.items()} == dict.fromkeys(CORRECTIONS.arrays, 0)
    assert problems == []
    (sheet,) = sheets(arrays)
    assert sheet.height < 50


def test_each_kind_of_correction_becomes_images_with_labels(tmp_path: Path) -> None:
    image = np.arange(784, dtype=np.uint8).reshape(28, 28)
    corrected(tmp_path, "pixels", [4], pixels_of(image))
    corrected(tmp_path, "two", ["no digit", None], pixels_of(image), pixels_of(image))
    # of a file that POST /predict got, the image that the network saw is used, and not prepared again
    corrected(tmp_path, "file", [2], pixels_of(image) | read_of(SEVEN))
    boxes = [[MARGIN + STEP * i, MARGIN, SIDE, SIDE] for i in range(3)]
    line = encoded(number("407"))
    corrected(tmp_path, "line", [{"text": "4 07", "boxes": boxes}], read_of(line))
    corrected(tmp_path, "none", ["no digit"], read_of(line, *boxes[:2]))
    arrays, problems = fetch(str(tmp_path), 0.0)
    assert problems == []
    found = dict(zip(arrays["ids"].tolist(), arrays["labels"].tolist(), strict=True))
    assert found == {
        "file-0": 2,
        "line-0-1-0": 4,
        "line-0-1-1": 0,
        "line-0-1-2": 7,
        "none-0-1-0": NO_DIGIT,
        "none-0-1-1": NO_DIGIT,
        "pixels-0": 4,
        "two-0": NO_DIGIT,
    }
    assert arrays["images"].dtype == np.uint8
    images = dict(zip(arrays["ids"].tolist(), arrays["images"], strict=True))
    assert all((images[name] == image).all() for name in ("file-0", "pixels-0", "two-0"))
    assert (images["none-0-1-1"] == images["line-0-1-1"]).all()
    # what was cut out shows the digits
    assert CLASSIFIER.probabilities(scale(arrays["images"][1:4])).argmax(1).tolist() == [4, 0, 7]


@pytest.mark.parametrize("kind", ["TIFF", "PDF"])
def test_digits_are_cut_out_of_the_page_that_a_correction_names(tmp_path: Path, kind: str) -> None:
    file = io.BytesIO()
    number("111").save(file, kind, save_all=True, append_images=[number("407")])
    readings = [read(file.getvalue(), "file", DETECTOR, page=page) for page in (1, 2)]
    boxes = [[digit.box for line in each.lines for digit in line.digits] for each in readings]
    assert [each.text for each in readings] == ["111", "407"]
    pages = [
        {"page": i, "lines": [{"digits": [{"box": box} for box in of_page]}]}
        for i, of_page in enumerate(boxes, 1)
    ]
    picture = read_of(file.getvalue()) | {"answer": {"readings": pages}}
    corrected(tmp_path, "second", [[{"page": 2, "text": "407", "boxes": boxes[1]}]], picture)
    corrected(tmp_path, "none", ["no digit"], picture)
    arrays, problems = fetch(str(tmp_path), 0.0)
    assert problems == []
    labels = dict(zip(arrays["ids"].tolist(), arrays["labels"].tolist(), strict=True))
    none = [f"none-0-{page}-{place}" for page in (1, 2) for place in range(3)]
    assert labels == dict.fromkeys(none, NO_DIGIT) | {"second-0-2-0": 4, "second-0-2-1": 0, "second-0-2-2": 7}
    seen = CLASSIFIER.probabilities(scale(arrays["images"])).argmax(1).tolist()
    assert seen == [1, 1, 1, 4, 0, 7, 4, 0, 7]


def test_a_picture_without_a_digit_is_reported_and_the_others_are_used(tmp_path: Path) -> None:
    box = [{"text": "1", "boxes": [[9, 9, 9, 9]]}]
    corrected(tmp_path, "blank", box, read_of(encoded(Image.new("L", (50, 50), 255))))
    corrected(tmp_path, "outside", [{"text": "1", "boxes": [[900, 900, 9, 9]]}], read_of(SEVEN))
    corrected(tmp_path, "seven", [7], SEEN)
    arrays, problems = fetch(str(tmp_path), 0.0)
    assert arrays["ids"].tolist() == ["seven-0"]
    assert [problem.split(":")[0] for problem in problems] == ["blank", "outside"]


def test_what_is_held_out_depends_on_the_id_only(tmp_path: Path) -> None:
    ids = [f"request-{i}" for i in range(1000)]
    held = [name for name in ids if is_held_out(name, 0.3)]
    assert 250 < len(held) < 350
    assert set(held) <= {name for name in ids if is_held_out(name, 0.5)}
    assert not any(is_held_out(name, 0.0) for name in ids)
    for name in ids[:20]:
        corrected(tmp_path, name, [7], SEEN)
    arrays, _ = fetch(str(tmp_path), 0.3)
    assert arrays["held_out"].tolist() == [name.removesuffix("-0") in held for name in arrays["ids"]]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"request_id": "x", "pictures": [{"index": 0}], "digits": [1]}']
)
def test_a_file_that_is_no_correction_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "corrected" / "2026-11-29" / "x.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(StageError, match="Remove it"):
        fetch(str(tmp_path), 0.3)


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="does not exist"):
        fetch(str(tmp_path / "nothing"), 0.3)


def compared(won: int, lost: int, same: int, margin: float | None = 0.01) -> Compared:
    """A comparison with so many images that one model or both get right."""
    champion = np.array([False] * won + [True] * lost + [True] * same)
    return Compared("set", champion, np.array([True] * won + [False] * lost + [True] * same), margin)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (0, 5), (6, 0), (7, 7), (40, 12), (1, 400)])
def test_the_p_value_is_that_of_the_binomial_test(won: int, lost: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(won, won + lost).pvalue if won + lost else 1
    assert compared(won, lost, 500).p() == pytest.approx(expected)


def test_the_interval_contains_the_difference_and_gets_narrower() -> None:
    widths = []
    for times in (1, 10, 100):
        one = compared(6 * times, 2 * times, 92 * times)
        low, high = one.interval()
        assert low < one.difference < high
        assert one.difference == pytest.approx(0.04)
        widths.append(high - low)
    # as the square root of the number
    assert widths[0] / widths[2] == pytest.approx(10, rel=0.1)


def test_a_fall_counts_above_the_margin_if_chance_does_not_explain_it() -> None:
    assert compared(0, 5, 995).problem() is None
    assert compared(0, 20, 980).problem() == "set: 2.00% fewer are right, more than 1.0%"
    # of 100 images
    assert compared(0, 2, 98).problem() is None
    assert compared(50, 0, 50).problem() is None


def test_corrections_must_rise_by_more_than_chance() -> None:
    assert compared(5, 0, 5, None).problem() == "set: chance explains the difference (p = 0.062)"
    assert compared(6, 0, 5, None).problem() is None
    assert compared(0, 9, 5, None).problem() == "set: fewer are right (p = 0.004)"
    empty = Compared("set", np.zeros(0, bool), np.zeros(0, bool), None)
    assert empty.problem() == "set: chance explains the difference (p = 1.000)"
    assert "| - |" in empty.row()


def a_model(folder: Path, text: str) -> Path:
    """A folder with files like those of a model."""
    for name in candidate.MODEL + candidate.METRICS[:3]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "models/mnist.json").write_text(json.dumps({"name": text, "params": {}}))
    (folder / "metrics/plots").mkdir()
    (folder / "metrics/plots" / f"{text}.csv").write_text(text)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_files_of_a_candidate_replace_the_champions(tmp_path: Path) -> None:
    old, new = a_model(tmp_path / "old", "old"), a_model(tmp_path / "new", "new")
    (old / "models" / "detector.h5").write_text("stays")
    candidate.replace(old, new)
    assert contents(old) == contents(new) | {"models/detector.h5": b"stays"}


def test_a_candidate_that_is_not_complete_replaces_nothing(tmp_path: Path) -> None:
    old, new = a_model(tmp_path / "old", "old"), a_model(tmp_path / "new", "new")
    before = contents(old)
    (new / "metrics" / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError):
        candidate.replace(old, new)
    assert contents(old) == before


def test_a_candidate_of_other_corrections_is_refused(tmp_path: Path) -> None:
    new = a_model(tmp_path / "new", "new")
    file = tmp_path / "corrections.npz"
    file.write_text("corrections")
    with pytest.raises(StageError, match="was not trained with"):
        candidate.check(new, file)
    sha256 = hashlib.sha256(b"corrections").hexdigest()
    card = {"params": {"corrections": {"sha256": sha256}}}
    (new / "models/mnist.json").write_text(json.dumps(card))
    candidate.check(new, file)


def test_labels_that_both_models_contradict_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corrected(tmp_path, "right", [7], SEEN)
    corrected(tmp_path, "wrong", [1], SEEN)
    arrays, _ = fetch(str(tmp_path), 0.0)
    candidate.list_contradicted(candidate.Pair(ROOT, ROOT), arrays, tmp_path)
    said = capsys.readouterr().out
    assert "wrong-0: 1, and both models read 7" in said
    assert "right" not in said
    assert (tmp_path / "review.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("version", "moved"), [("abc", [("digits", "champion", "3")]), ("other", [])])
def test_in_mlflow_the_alias_champion_follows_an_accepted_candidate(
    monkeypatch: pytest.MonkeyPatch, version: str, moved: list[tuple[str, str, str]]
) -> None:
    aliases: list[tuple[str, str, str]] = []

    class Client:
        """Of a registry whose candidate is version 3, the model abc."""

        def get_model_version_by_alias(self, name: str, alias: str) -> SimpleNamespace:
            assert (name, alias) == ("digits", "candidate")
            return SimpleNamespace(version="3", tags={"version": "abc"})

        def set_registered_model_alias(self, *alias: str) -> None:
            aliases.append(alias)  # type: ignore[arg-type]

    mlflow = ModuleType("mlflow")
    mlflow.MlflowClient = Client  # type: ignore[attr-defined]
    mlflow.__spec__ = ModuleSpec("mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    tracking.promote(version)
    assert aliases == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    # set here, so that they are restored
    for name in ("MAX_RETRIES", "TIMEOUT"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "2")
    tracking.promote(version)
    assert aliases == moved


# images of MNIST with which the network is trained for one epoch, and pictures that are corrected
LIMIT, CORRECTED = "20000", 100


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, mnist: dict[str, np.ndarray]) -> Path:
    """A clone with the files of this working tree, MNIST, and few images to train with."""
    folder = clone(ROOT, tmp_path_factory.mktemp("loop") / "project")
    for name in ("digits", "benchmarks"):
        shutil.rmtree(folder / name)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    python(folder, "-m", "digits.training.data", "--npz", os.environ["MNIST_NPZ"])
    python(folder, "-m", "digits.training.images", "--limit", LIMIT, "--out", "few/images.npz")
    return folder


def python(folder: Path, *words: str) -> str:
    """The output of a Python program of the project."""
    return run(folder, sys.executable, *words).stdout


def ask(server: Server, image: np.ndarray, request_id: str) -> int:
    answer = server.ask("/predict", {"image": image.tolist()}, X_Request_ID=request_id)
    assert answer.status == 200
    return answer.json["predicted_digit"]


def version(server: Server) -> str:
    return server.ask("/health/ready").json["model_version"]


def trained(folder: Path, store: Path, out: str) -> subprocess.CompletedProcess[str]:
    """Train with the corrections in a store, and compare."""
    file = f"{out}/corrections.npz"
    words = ("--source", str(store), "--out", file, "--sheets", f"{out}/sheets")
    python(folder, "-m", "digits.training.corrections", *words)
    few = ("--images", "few/images.npz", "--out", out)
    start = ("--start", "models/mnist.h5", "--epochs", "1", "--learning-rate", "0.0003")
    python(folder, "train.py", "--corrections", file, *start, *few)
    python(folder, "-m", "digits.training.compile", f"{out}/models/mnist.h5", f"{out}/models/mnist.tflite")
    python(folder, "-m", "digits.training.evaluate", *few)
    # few steps with few images cost about as much accuracy as the margin allows
    margin = ("--test-margin", "0.002")
    words = ("benchmarks/candidate.py", out, "--corrections", file, "--n", "30", *margin)
    return run(folder, sys.executable, *words, check=False)


@pytest.mark.e2e
def test_wrong_corrections_are_rejected_and_right_ones_make_the_served_model_better(
    project: Path, start: Callable[..., Server], tmp_path: Path, mnist: dict[str, np.ndarray]
) -> None:
    model = str(project / "models" / "mnist.h5")
    wrong, right = tmp_path / "wrong", tmp_path / "right"
    x, y = mnist["x_train"], mnist["y_train"]
    # upright 4s, said to be 9s
    server = start(DIGITS_MODEL=model, DIGITS_COLLECT=str(wrong), DIGITS_COLLECT_SHARE="1")
    for i, image in enumerate(x[y == 4][:CORRECTED]):
        ask(server, image, f"four-{i}")
        assert server.ask("/corrections", {"request_id": f"four-{i}", "digits": [9]}).status == 200
    server.stop()
    before = contents(project / "models") | contents(project / "metrics")
    done = trained(project, wrong, "tmp/wrong")
    print(done.stdout, done.stderr)
    assert done.returncode == 1
    assert "The candidate is not better, and nothing was changed" in done.stderr
    assert contents(project / "models") | contents(project / "metrics") == before

    # 7s that lie on their side
    sevens = np.rot90(x[y == 7], axes=(1, 2))
    server = start(DIGITS_MODEL=model, DIGITS_COLLECT=str(right), DIGITS_COLLECT_SHARE="0")
    first, kept = version(server), 0
    for i, image in enumerate(sevens[:CORRECTED]):
        ask(server, image, f"seven-{i}")
        # the few of which it is sure are not kept
        answer = server.ask("/corrections", {"request_id": f"seven-{i}", "digits": [7]})
        assert answer.status in (200, 404)
        kept += answer.status == 200
    assert kept > 0.8 * CORRECTED
    others = sevens[-50:]
    assert sum(ask(server, image, "other") == 7 for image in others) < 0.3 * len(others)
    done = trained(project, right, "tmp/right")
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    # both workers
    while first in {version(server) for _ in range(20)}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert sum(ask(server, image, "other") == 7 for image in others) > 0.8 * len(others)
    assert sum(ask(server, image, "upright") == 7 for image in x[y == 7][-50:]) > 0.9 * 50
