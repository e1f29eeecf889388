"""The pages from which the detector learns, what the network is to answer for them, and its training: equal for a
seed, also when it is stopped and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from ai_edge_litert.interpreter import Interpreter
from PIL import ImageFont

from digits.reading.choose import Logistic
from digits.training import arrays
from digits.training.detector import downloads
from digits.training.detector.calibrate import logistic, sure_from
from digits.training.detector.pages import ASKED, HEIGHT, MARK, WIDTH, Page, Pages
from digits.training.detector.scores import detections, scores
from digits.training.detector.targets import ASK, BOX, CLASS, HEAT, WEIGHT, target
from digits.training.stage import StageError
from digits.training.synthetic import draw
from project import ROOT

PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())["detector"]
SMALL = {"held_out_digits": 40, "held_out_fonts": ["held"], "strokes": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small stand-in for the data folder, made without a network."""
    made = tmp_path_factory.mktemp("data")
    arrays.write(draw(400, 10, 3), made / "digits.npz")
    font = ImageFont.load_default(20).font_bytes
    for kind, name in (("handwriting", "held"), ("handwriting", "other"), ("printed", "plain")):
        (made / "fonts" / kind).mkdir(parents=True, exist_ok=True)
        (made / "fonts" / kind / f"{name}.ttf").write_bytes(font)
    (made / "photographs").mkdir()
    noise = np.random.default_rng(4).integers(0, 256, (40, 50), np.uint8)
    cv2.imwrite(str(made / "photographs" / "noise.png"), cv2.resize(noise, (400, 300)))
    return made


@pytest.fixture(scope="module")
def pages(folder: Path) -> Pages:
    return Pages(PARAMS["pages"] | SMALL, folder)


def same(a: Page, b: Page) -> bool:
    return a.input.tobytes() == b.input.tobytes() and a.boxes.tobytes() == b.boxes.tobytes()


@pytest.mark.parametrize("kind", PARAMS["pages"]["kinds"])
def test_a_page_depends_on_its_number_only(folder: Path, pages: Pages, kind: str) -> None:
    page = pages.page(7, kind)
    assert page.input.shape == (HEIGHT, WIDTH)
    assert np.isfinite(page.input).all()
    assert same(page, Pages(PARAMS["pages"] | SMALL, folder).page(7, kind))
    assert not same(page, pages.page(8, kind))


def test_held_out_pages_are_others(folder: Path, pages: Pages) -> None:
    held = Pages(PARAMS["pages"] | SMALL, folder, held=True)
    assert not same(held.page(1, "strings"), pages.page(1, "strings"))
    assert len(held.stock.hands) == len(pages.stock.hands) == 1
    assert len(held.stock.digits.images) == 40


@pytest.mark.parametrize("kind", ["drawn", "photograph"])
def test_pages_without_writing_ask_for_nothing(pages: Pages, kind: str) -> None:
    assert not any(len(pages.page(number, kind).labels) for number in range(5))


def test_blank_forms_have_no_digits(pages: Pages) -> None:
    assert not any((pages.page(number, "blank").labels < MARK).any() for number in range(10))


def test_a_kind_of_weight_zero_is_left_out(folder: Path) -> None:
    only = PARAMS["pages"] | SMALL | {"kinds": {"boxes": 1, "text": 0}}
    assert {Pages(only, folder).page(number).kind for number in range(8)} == {"boxes"}


def test_boxes_hold_the_ink_of_their_digits(folder: Path) -> None:
    """On pages of plain strings the pixels that differ from the paper lie in boxes."""
    plain = dict.fromkeys(
        ["ruled", "squared", "bleed", "shadow", "fold", "noise", "jpeg", "panel", "table"], 0
    )
    plain |= {"plain": 1, "inverted": 0, "faint": 0, "tight": 0, "strong_blur": 0, "digits": {"pen": 1}}
    made = Pages(PARAMS["pages"] | SMALL | plain, folder)
    in_boxes = outside = 0.0
    for number in range(12):
        page = made.page(number, "strings")
        if not len(page.labels) or (page.states != ASKED).any():
            continue
        dark = page.input < -0.7
        cover = np.zeros_like(dark)
        for x0, y0, x1, y1 in page.boxes.round().astype(int):
            cover[max(0, y0 - 1) : y1 + 1, max(0, x0 - 1) : x1 + 1] = True
            in_boxes += dark[max(0, y0) : y1, max(0, x0) : x1].any()
        outside += float((dark & ~cover)[2:-2, 2:-2].sum())
        in_boxes += float((dark & cover).sum())
    assert in_boxes > 500
    assert outside < 0.1 * in_boxes


def page_of(boxes: list[list[float]], labels: list[int], states: list[int]) -> Page:
    n = len(labels)
    empty = np.zeros((HEIGHT, WIDTH), np.float32)
    return Page("", empty.astype(np.uint8), empty, np.array(labels), np.array(boxes, np.float32).reshape(n, 4),
                np.array(states), np.zeros(n, int))  # fmt: skip


def test_targets_say_where_and_what_a_digit_is() -> None:
    wanted = target(
        page_of([[100, 50, 116, 74], [30, 30, 34, 34], [200, 100, 220, 130]], [7, MARK, 3], [1, 1, 0])
    )
    row, column = 62 // 4, 108 // 2
    peak = wanted[row, column]
    assert (peak[HEAT], peak[ASK], peak[CLASS]) == (1, 1, 7)
    x, y = (column + 0.5) * 2 + 8 * peak[BOX], (row + 0.5) * 4 + 8 * peak[BOX + 1]
    assert (x, y) == pytest.approx((108, 62), abs=0.02)
    assert peak[BOX + 2 : BOX + 4] == pytest.approx([0, 0], abs=0.01)
    # the weights of a digit add up to 1, those of a mark to less
    digit, mark = (wanted[..., WEIGHT] * (wanted[..., CLASS] == label) for label in (7, MARK))
    assert float(digit.astype(np.float32).sum()) == pytest.approx(1, abs=0.01)
    assert 0 < float(mark.astype(np.float32).sum()) < 0.9
    # nothing is asked for where a digit is too small, too large or cut
    assert wanted[115 // 4, 210 // 2, ASK] == 0
    assert wanted[10, 10, ASK] == 1


def answer_for(page: Page) -> np.ndarray:
    """The answer of a network that knows the page."""
    wanted = target(page).astype(np.float32)
    values = np.zeros((*wanted.shape[:2], 16), np.float32)
    values[..., 0] = np.where(wanted[..., HEAT] == 1, 5, -5)
    values[..., 1:12] = 9 * np.eye(11)[wanted[..., CLASS].astype(int)]
    values[..., 12:] = wanted[..., BOX:]
    return values.reshape(HEIGHT // 4, WIDTH // 4, 32)


def test_a_perfect_answer_is_read_and_scored_as_such(pages: Pages) -> None:
    some = [pages.page(number, kind) for kind in ("strings", "boxes") for number in range(6)]
    perfect = scores(some, np.stack([answer_for(page) for page in some]))
    # of digits almost at one place, one may be lost
    assert perfect["f1"] > 0.97
    assert perfect["strings"] > 0.93
    nothing = scores(some, np.full((len(some), HEIGHT // 4, WIDTH // 4, 32), -9.0, np.float32))
    assert nothing["recall"] == nothing["strings"] == 0


def test_detections_of_one_digit_are_one() -> None:
    page = page_of([[100, 50, 116, 74]], [4], [1])
    answer = answer_for(page)
    # a neighbour that is nearly as sure of the same digit
    values = answer.reshape(HEIGHT // 4, -1, 16)
    values[17, 54] = values[15, 54]
    values[17, 54, 0], values[17, 54, 13] = 4, values[15, 54, 13] - 1
    classes, sure, boxes = detections(values.reshape(answer.shape))
    assert classes.tolist() == [4]
    assert sure[0] > 0.9
    assert boxes[0] == pytest.approx([100, 50, 116, 74], abs=0.3)


TINY = {
    "pages_in_all": 16,
    "batch": 2,
    "warmup": 4,
    "evaluate_every": 4,
    "held_out_pages": 2,
    "threads": 1,
    "network": {"stem": 4, "fine": 4, "middle": 8, "coarse": 8, "head": 4},
}


# does several small trainings in one process, because TensorFlow takes seconds to start; the run "stopped" gets
# SIGINT when it has printed the first scores
RUNS = """
import contextlib, io, json, os, signal, sys
import keras
from digits.training.detector.train import main

class Stopping(io.StringIO):
    def write(self, text):
        if text.startswith("digits"):
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(text)

if __name__ == "__main__":
    outcomes = {}
    for name, arguments in json.loads(sys.argv[1]).items():
        output, error = Stopping() if name == "stopped" else io.StringIO(), None
        sys.argv = ["", *arguments]
        # the files hold the layers' numbers, which would go on counting
        keras.utils.clear_session()
        with contextlib.redirect_stdout(output):
            try:
                main()
            except SystemExit as exit:
                error = exit.code
        outcomes[name] = {"printed": output.getvalue(), "error": error}
    print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with the results of several small trainings, and what they printed."""
    out = tmp_path_factory.mktemp("runs")
    params = {"detector": PARAMS | TINY | {"pages": PARAMS["pages"] | SMALL}}
    (out / "params.yaml").write_text(yaml.safe_dump(params))
    (out / "runs.py").write_text(RUNS)
    options = ["--params", str(out / "params.yaml"), "--data", str(folder)]

    def arguments(states: str, name: str, *more: str) -> list[str]:
        return [*options, "--states", str(out / "states" / states), "--out", str(out / name), *more]

    todo = {
        "whole": arguments("a", "whole"),
        "stopped": arguments("b", "stopped"),
        "resumed": arguments("b", "resumed"),
        "continued": arguments("a", "continued", "--pages", "20"),
        "long": arguments("c", "long", "--pages", "20"),
    }
    command = [sys.executable, str(out / "runs.py"), json.dumps(todo)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout.splitlines()[-1])


def card(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics" / "detector" / "trained.json").read_text()))


@pytest.mark.e2e
def test_a_training_that_is_stopped_and_resumed_gives_the_same_model(
    runs: tuple[Path, dict[str, Any]],
) -> None:
    out, said = runs
    assert said["stopped"]["error"] == "Stopped. The next run goes on from here."
    assert not (out / "stopped").exists()
    assert "resumed after" in said["resumed"]["printed"]
    assert said["resumed"]["error"] is None
    assert card(out / "resumed")["h5_sha256"] == card(out / "whole")["h5_sha256"]
    curves = [(out / name / "metrics/detector/curve.tsv").read_text() for name in ("resumed", "whole")]
    assert curves[0] == curves[1]


@pytest.mark.e2e
def test_a_longer_training_goes_on_where_the_learning_rate_began_to_fall(
    runs: tuple[Path, dict[str, Any]],
) -> None:
    out, said = runs
    # 0.7 of 16 pages, in whole batches
    assert "resumed after 12 pages" in said["continued"]["printed"]
    assert "resumed" not in said["long"]["printed"]
    assert card(out / "continued")["h5_sha256"] == card(out / "long")["h5_sha256"]
    assert card(out / "long")["h5_sha256"] != card(out / "whole")["h5_sha256"]


@pytest.mark.e2e
def test_the_card_names_the_files_and_the_scores(runs: tuple[Path, dict[str, Any]]) -> None:
    out, _ = runs
    whole = card(out / "whole")
    for name, key in (("detector.h5", "h5_sha256"), ("detector.tflite", "tflite_sha256")):
        content = (out / "whole" / "models" / name).read_bytes()
        assert whole[key] == hashlib.sha256(content).hexdigest()
    assert whole["version"] == whole["h5_sha256"][:12]
    assert whole["pages"] == 16
    assert set(whole["held_out"]) >= {"f1", "strings"}


@pytest.mark.e2e
def test_the_compiled_network_takes_any_size(runs: tuple[Path, dict[str, Any]]) -> None:
    """An answer depends on what is near only: that of a part is that of the whole, away from the edges."""
    out, _ = runs
    compiled = Interpreter(str(out / "whole/models/detector.tflite"))
    picture = np.random.default_rng(1).normal(0, 1, (1, 320, 352, 1)).astype(np.float32)
    answers = []
    for part in (picture, picture[:, :256, :288]):
        compiled.resize_tensor_input(compiled.get_input_details()[0]["index"], part.shape)
        compiled.allocate_tensors()
        compiled.set_tensor(compiled.get_input_details()[0]["index"], part)
        compiled.invoke()
        answers.append(compiled.get_tensor(compiled.get_output_details()[0]["index"]))
        assert answers[-1].shape == (1, part.shape[1] // 4, part.shape[2] // 4, 32)
    assert np.abs(answers[0][:, :24, :24] - answers[1][:, :24, :24]).max() < 1e-3
    assert np.abs(answers[0]).max() > 0.1


FONTS = downloads.Fonts("1.0.0", ["x"], [])


def test_fonts_are_copied_from_a_local_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_FONTS", str(folder / "fonts"))
    downloads.fetch_fonts(FONTS, tmp_path)
    assert [path.name for path in downloads.font_files(tmp_path, "handwriting")] == ["held.ttf", "other.ttf"]
    monkeypatch.setenv("DIGITS_FONTS", str(tmp_path / "none"))
    with pytest.raises(StageError, match="none/handwriting has no fonts"):
        downloads.fetch_fonts(FONTS, tmp_path)


def test_photographs_are_copied_from_a_local_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_PHOTOGRAPHS", str(folder / "photographs"))
    downloads.fetch_photographs(downloads.Photographs("", "", "", []), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["noise.png"]


def test_without_npm_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StageError, match=r"npm is not installed.* Or set DIGITS_FONTS"):
        downloads.fetch_fonts(FONTS, tmp_path)


def npm_that(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program named npm in the PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def test_npm_says_itself_why_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    npm_that(tmp_path, "echo 'npm error network is down' >&2; exit 1", monkeypatch)
    with pytest.raises(StageError, match=r"npm .* failed"):
        downloads.fetch_fonts(FONTS, tmp_path)
    assert capfd.readouterr().err == "npm error network is down\n"


def test_a_package_without_the_font_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm_that(tmp_path, "exit 0", monkeypatch)
    with pytest.raises(StageError, match=r"fontsource-x-1.0.0.tgz is not a package of Fontsource"):
        downloads.fetch_fonts(FONTS, tmp_path)


def test_photographs_that_pip_can_not_fetch_are_named(tmp_path: Path) -> None:
    params = downloads.Photographs("scikit-image", "0.26.0", "0" * 64, [])
    with pytest.raises(StageError, match="DIGITS_PHOTOGRAPHS"):
        downloads.fetch_photographs(params, tmp_path)


def test_the_fitted_probability_is_that_of_the_samples() -> None:
    rng = np.random.default_rng(5)
    features = rng.normal(0, 2, (20_000, 2))
    true = Logistic([1.5, -0.5], 0.3)
    weights, bias = logistic(features, rng.random(len(features)) < true(features))
    assert np.abs(Logistic(weights, bias)(features) - true(features)).max() < 0.03


def test_the_threshold_keeps_the_wrong_ones_below_a_fraction_of_all() -> None:
    probability = np.array([0.99, 0.9, 0.8, 0.7, 0.6])
    right = np.array([True, True, False, True, False])
    assert [sure_from(probability, right, errors) for errors in (0, 0.2, 0.4)] == [0.9, 0.7, 0.6]
    # expected errors: 0.01 and 0.11 of five
    assert sure_from(probability, probability, 0.03) == 0.9
    assert sure_from(np.array([0.5]), np.array([False]), 0) == 1
