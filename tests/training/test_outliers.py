"""Outliers: they depend only on the seed, have MNIST's form, and each kind can be left out. Also tests the
measures that are computed with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import ImageFont

from digits.training import drawings, glyphs, hands, handwritten, measures, outliers, plots
from digits.training.arrays import read
from digits.training.detector.params import detector_params
from digits.training.images import digits_of_fonts
from digits.training.stage import StageError
from digits.training.synthetic import draw as draw_digits
from project import ROOT

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())["images"]
ALL = dict.fromkeys(outliers.KINDS, 1)


def draw(
    count: int, images: np.ndarray, labels: np.ndarray, seed: int, kinds: dict[str, float]
) -> dict[str, np.ndarray]:
    """About `count` outliers by kind, without kinds that have none."""
    wanted = outliers.numbers(count, kinds)
    return {
        kind: drawn
        for kind, number in wanted.items()
        if len(drawn := outliers.draw_kind(kind, number, images, labels, seed))
    }


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Synthetic digits and their labels."""
    arrays = draw_digits(60, 0, 4)
    return arrays["x_train"], arrays["y_train"]


def test_the_same_seed_draws_the_same_outliers(digits: tuple[np.ndarray, np.ndarray]) -> None:
    first, again = (draw(44, *digits, 3, ALL) for _ in range(2))
    other = draw(44, *digits, 4, ALL)
    for kind in ALL:
        assert first[kind].tobytes() == again[kind].tobytes()
        assert first[kind].tobytes() != other[kind].tobytes()


@pytest.mark.parametrize("kind", ALL)
def test_every_kind_gives_images_in_mnists_form(kind: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    images = draw(12, *digits, 1, {kind: 1})[kind]
    assert images.shape == (12, 28, 28)
    assert images.dtype == np.uint8
    assert (images.max((1, 2)) > 100).all()
    # all images differ
    assert len({image.tobytes() for image in images}) == 12


def test_a_kind_with_weight_zero_is_left_out(digits: tuple[np.ndarray, np.ndarray]) -> None:
    both = draw(20, *digits, 1, {"signs": 1, "lines": 1})
    one = draw(10, *digits, 1, {"signs": 0, "lines": 1})
    assert list(one) == ["lines"]
    assert one["lines"].tobytes() == both["lines"].tobytes()
    assert draw(10, *digits, 1, {"signs": 0}) == {}
    assert draw(10, *digits, 1, {}) == {}
    assert draw(0, *digits, 1, ALL) == {}


def test_an_unknown_kind_is_named(digits: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(StageError, match="unknown kinds of outliers: cats"):
        draw(10, *digits, 1, {"cats": 1, "lines": 1})


def test_params_name_every_kind() -> None:
    assert set(PARAMS["outliers"]["kinds"]) == set(outliers.KINDS)


def test_outliers_can_be_made_from_few_digits() -> None:
    arrays = draw_digits(1, 0, 4)
    made = draw(22, arrays["x_train"], arrays["y_train"], 1, ALL)
    assert set(made) == set(ALL)


def test_the_held_out_family_is_never_in_training() -> None:
    kana = json.loads((ROOT / "benchmarks" / "kana.json").read_text())
    assert len(kana) >= 20
    trained = [json.dumps(strokes) for script in drawings.SIGNS.values() for strokes in script.values()]
    assert not {json.dumps(strokes) for strokes in kana.values()} & set(trained)
    # nor as letters from fonts: hiragana, katakana, and all scripts except Latin and Greek
    assert all(ord(letter) < 0x400 or letter == "€" for letter in drawings.LETTERS)


def test_no_letter_or_sign_looks_like_a_digit() -> None:
    names = {name for script in drawings.SIGNS.values() for name in script}
    for alike in "OoIl|ZzSsBbGgqy0123456789":
        assert alike not in drawings.LETTERS
        assert alike not in names
        assert not any(alike in hands.letters(hand) for hand in hands.hands())


def test_every_hand_has_ten_digits_and_held_out_families_are_not_trained_with() -> None:
    arrays = read(hands.GLYPHS)
    held_out = detector_params()["pages"]["held_out_fonts"]
    assert set(arrays["families"][arrays["held_out"] == 1]) == set(held_out)
    assert not set(arrays["families"][arrays["held_out"] == 0]) & set(held_out)
    trained, measured = hands.hands(), hands.hands(held_out=True)
    assert len(measured) == len(held_out)
    assert all(set(hand) >= set("0123456789") for hand in (*trained, *measured))
    seen = {image.tobytes() for hand in trained for image in hand.values()}
    assert not seen & {image.tobytes() for hand in measured for image in hand.values()}


def test_glyphs_are_drawn_from_the_font_files(tmp_path: Path) -> None:
    face = ImageFont.load_default(44)
    assert isinstance(face, ImageFont.FreeTypeFont)
    for name in ("kept", "held"):
        (tmp_path / f"{name}.ttf").write_bytes(face.font_bytes)
    arrays = glyphs.draw([tmp_path / "kept.ttf", tmp_path / "held.ttf"], ["held"])
    assert set(arrays) == set(hands.GLYPHS.arrays)
    assert set(arrays["characters"]) >= set("0123456789AE")
    assert arrays["images"].shape[1:] == (64, 64)
    assert (arrays["images"].max((1, 2)) > 100).all()
    assert set(arrays["families"][arrays["held_out"] == 1]) == {"held"}


def test_the_contact_sheet_shows_each_kind(digits: tuple[np.ndarray, np.ndarray]) -> None:
    made = draw(22, *digits, 1, ALL)
    sheet = np.asarray(plots.contact_sheet(made))
    assert sheet.shape[0] == 30 * len(ALL)
    for row, images in enumerate(made.values()):
        assert (sheet[row * 30 : row * 30 + 28, 80:108] == images[0]).all()


def test_the_threshold_keeps_the_given_share_of_digits_sure() -> None:
    digits = np.linspace(0.001, 1, 1000)
    threshold = measures.sure_threshold(digits, np.array([0.1, 0.9]), 0.99)
    assert (digits >= threshold).mean() >= 0.99
    assert 0 < threshold < 0.02
    assert measures.sure_threshold(digits, np.array([]), 0.99) == threshold
    assert measures.sure_threshold(np.ones(5), np.array([]), 0.99) < 1
    assert measures.sure_threshold(np.zeros(5), np.array([]), 0.99) > 0


def test_the_eleventh_output_becomes_ten_low_probabilities() -> None:
    network = pytest.importorskip("digits.training.network")
    scores = 30 * np.eye(11, dtype=np.float32)
    scores[network.NO_DIGIT, 4] = 1
    served = network.folded(scores)
    assert served.sum(1) == pytest.approx(1)
    assert served[:10] == pytest.approx(np.eye(10), abs=1e-6)
    assert served[network.NO_DIGIT].max() < 0.2
    # the best guess is still the highest
    assert served[network.NO_DIGIT].argmax() == 4


def test_the_network_that_is_served_folds_as_numpy_does() -> None:
    network = pytest.importorskip("digits.training.network")
    trained = network.build([2, 2, 2], [4, 4], [0.1, 0.1])
    images = np.random.default_rng(1).random((5, 28, 28, 1), np.float32)
    scores = np.log(trained.predict(images, verbose=0))
    served = network.fold(trained).predict(images, verbose=0)
    assert served == pytest.approx(network.folded(scores), abs=1e-6)
    assert served.shape == (5, 10)


@pytest.mark.parametrize("draw", [drawings.printed, handwritten.digit])
def test_digits_of_fonts_only_depend_on_the_seed(
    draw: Callable[[str, np.random.Generator], np.ndarray],
) -> None:
    (images, labels), (again, _) = digits_of_fonts(12, 1, draw), digits_of_fonts(12, 1, draw)
    assert images.tobytes() == again.tobytes()
    assert images.shape == (12, 28, 28)
    assert set(labels) <= set(range(10))
    assert (images.max((1, 2)) > 100).all()
    assert digits_of_fonts(0, 1, draw)[0].shape == (0, 28, 28)


def test_auroc_is_how_often_a_digit_is_surer_than_an_outlier() -> None:
    assert measures.auroc(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 1
    assert measures.auroc(np.array([0.1]), np.array([0.2])) == 0
    assert measures.auroc(np.array([0.5, 0.9]), np.array([0.5, 0.6])) == pytest.approx((0.5 + 2) / 4)


def test_the_calibration_error_is_the_distance_of_probability_and_accuracy() -> None:
    probabilities = np.full((10, 10), 0.2 / 9)
    probabilities[:, 3] = 0.8
    labels = np.array([3] * 7 + [4] * 3)
    bins = measures.reliability(probabilities.max(1), labels == 3)
    assert bins == [(pytest.approx(0.8), pytest.approx(0.7), 10)]
    assert measures.calibration_error(bins) == pytest.approx(0.1)
    assert measures.evaluate(probabilities, labels, 0.5)["sure_and_wrong"] == pytest.approx(0.3)
    assert measures.evaluate(probabilities, labels, 0.9)["sure"] == 0


def test_evaluations_outliers_are_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("outliers", None)
    import outliers as kinds  # type: ignore[import-not-found]

    np.savez(tmp_path / "mnist.npz", **draw_digits(0, 50, 5))
    monkeypatch.setenv("MNIST_NPZ", str(tmp_path / "mnist.npz"))
    for kind in kinds.KINDS:
        pictures = list(kind(2, np.random.default_rng(1)))
        # without fonts there are no letters
        assert len(pictures) in ((0, 2) if kind.__name__ == "letters" else (2,))
        assert all(picture.mode == "L" and picture.getextrema()[1] > 100 for picture in pictures)
