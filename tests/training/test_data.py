"""The sources of the images: a file, Keras, or synthetic digits. They are verified, and written in the same
format."""

from __future__ import annotations

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from digits.imaging import PictureError, prepare, prepare_grey
from digits.training.arrays import DIGITS, read, write
from digits.training.data import from_file, from_keras, main
from digits.training.images import low_resolution, split
from digits.training.mnist import idx_sha256, verify
from digits.training.stage import StageError, outputs
from digits.training.synthetic import draw
from project import ROOT


def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "MNIST_NPZ"} | environ
    return subprocess.run(
        [sys.executable, "-m", "digits.training.data", *args],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_canonical_file_is_the_same_whatever_the_source(
    mnist: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = os.environ["MNIST_NPZ"]
    assert run("--npz", path, "--out", str(tmp_path / "a.npz")).returncode == 0
    assert run("--out", str(tmp_path / "b.npz"), MNIST_NPZ=path).returncode == 0
    # another order and compression change the input file, but not the output
    np.savez_compressed(tmp_path / "other.npz", **{name: mnist[name] for name in sorted(mnist)})
    assert run("--npz", str(tmp_path / "other.npz"), "--out", str(tmp_path / "c.npz")).returncode == 0
    assert (
        (tmp_path / "a.npz").read_bytes()
        == (tmp_path / "b.npz").read_bytes()
        == (tmp_path / "c.npz").read_bytes()
    )


def test_keras_downloads_mnist_if_no_file_is_named(
    mnist: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # only the download is replaced, because the tests also run without network access
    downloaded = (mnist["x_train"], mnist["y_train"]), (mnist["x_test"], mnist["y_test"])
    monkeypatch.setattr("keras.datasets.mnist.load_data", lambda: downloaded)
    monkeypatch.setattr("socket.setdefaulttimeout", lambda seconds: None)
    monkeypatch.delenv("MNIST_NPZ")
    monkeypatch.setattr("sys.argv", ["digits.training.data", "--out", str(tmp_path / "a.npz")])
    main()
    np.testing.assert_array_equal(read(DIGITS, tmp_path / "a.npz")["x_test"], mnist["x_test"])


def test_offline_the_message_names_both_alternatives(tmp_path: Path) -> None:
    out = tmp_path / "data" / "a.npz"
    # a proxy that does not exist, so that no address can be reached
    dead = dict.fromkeys(("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
    done = run("--out", str(out), KERAS_HOME=str(tmp_path / "keras"), no_proxy="", NO_PROXY="", **dead)
    assert done.returncode == 1
    assert "MNIST_NPZ" in done.stderr
    assert "dvc exp run -S data.source=synthetic" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert not list((tmp_path / "keras").rglob("*.npz"))


@pytest.mark.parametrize(
    ("error", "reason"), [(TimeoutError(), "TimeoutError"), (OSError("gone\nfor good"), "gone")]
)
def test_a_failed_download_is_reported_with_or_without_a_message(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def load_data() -> None:
        raise error

    # the test above uses the real Keras
    mnist = SimpleNamespace(load_data=load_data)
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(datasets=SimpleNamespace(mnist=mnist)))
    monkeypatch.setattr("socket.setdefaulttimeout", lambda seconds: None)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    with pytest.raises(StageError, match=f"MNIST could not be downloaded: {reason}\n"):
        from_keras()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "can't be read"),
        (b"no zip", "can't be read"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_is_not_an_npz_is_reported(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "mnist.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StageError, match=message):
        from_file(path)
    assert not path.exists() if content is None else path.read_bytes() == content


def test_a_truncated_file_is_reported_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    write(draw(train=50, test=10, seed=1), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    done = run("--npz", str(path), "--out", str(tmp_path / "out.npz"))
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == whole[: len(whole) // 2]
    assert not (tmp_path / "out.npz").exists()


def test_other_images_are_not_accepted_as_mnist(tmp_path: Path) -> None:
    arrays = draw(train=50, test=10, seed=1)
    with pytest.raises(StageError, match="differs from the published file"):
        verify(arrays, "it")
    write(arrays, tmp_path / "mnist.npz")
    with pytest.raises(StageError, match=r"mnist\.npz is not MNIST: its x_train"):
        from_file(tmp_path / "mnist.npz")
    with pytest.raises(StageError, match="has no x_train"):
        verify({}, "it")


def test_one_changed_pixel_is_noticed(mnist: dict[str, np.ndarray]) -> None:
    arrays = {name: array.copy() for name, array in mnist.items()}
    arrays["x_test"][5, 14, 14] ^= 1
    with pytest.raises(StageError, match="x_test"):
        verify(arrays, "it")


def test_if_the_canonical_file_is_missing_the_message_says_how_to_create_it(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"digits\.npz is missing\. Run `dvc repro data`\."):
        read(DIGITS, tmp_path / "digits.npz")


def test_a_pickle_in_the_file_is_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", x_train=np.array([object()]))
    with pytest.raises(StageError, match="can't be read"):
        from_file(tmp_path / "evil.npz")


def test_the_idx_hash_counts_the_header() -> None:
    flat, square = np.zeros(4, np.uint8), np.zeros((2, 2), np.uint8)
    assert idx_sha256(flat) != idx_sha256(square)


def test_synthetic_digits_have_mnists_form() -> None:
    arrays = draw(train=300, test=40, seed=3)
    x, y = arrays["x_train"], arrays["y_train"]
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((300, 28, 28), np.uint8, (300,), np.uint8)
    assert arrays["x_test"].shape == (40, 28, 28)
    assert set(y.tolist()) == set(range(10))
    for image in x:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert rows[-1] - rows[0] < 20
        assert columns[-1] - columns[0] < 20
        mass = image / image.sum()
        assert abs((mass.sum(0) * np.arange(28)).sum() - 13.5) < 1.1
        assert abs((mass.sum(1) * np.arange(28)).sum() - 13.5) < 1.1


def test_each_image_is_trained_calibrated_or_validated_on() -> None:
    train, calibration, val = split(1000, validation=100, calibration_fraction=0.3, seed=1)
    assert (len(train), len(calibration), len(val)) == (900, 30, 70)
    assert sorted([*train, *calibration, *val]) == list(range(1000))
    assert [len(part) for part in split(3, validation=2, calibration_fraction=0.5, seed=1)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("n", "validation", "calibration_fraction"),
    [(100, 100, 0.5), (100, 5000, 0.5), (100, 20, 0), (100, 20, 1), (100, 0, 0.5), (100, 1, 0.5)],
)
def test_a_split_that_leaves_a_part_empty_is_refused(
    n: int, validation: int, calibration_fraction: float
) -> None:
    with pytest.raises(StageError, match=rf"{n} images are too few .* validation: {validation} "):
        split(n, validation, calibration_fraction, seed=1)


def test_a_grey_array_is_prepared_like_a_file_with_the_same_pixels() -> None:
    grey = np.pad(
        255 - np.asarray(Image.fromarray(draw(1, 0, seed=3)["x_train"][0]).resize((90, 90))), 12, mode="edge"
    )
    file = BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    np.testing.assert_array_equal(prepare_grey(grey), prepare([file.getvalue()], ["image"])[0])
    with pytest.raises(PictureError, match="image is blank"):
        prepare_grey(np.full((40, 40), 200, np.uint8))


def test_outputs_replace_the_old_ones_together_and_only_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("old/one.txt", "two.txt"):
        (tmp_path / name).write_text("old")

    def stopped() -> None:
        with outputs(tmp_path, "old", "two.txt") as new:
            (new / "two.txt").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert (tmp_path / "two.txt").read_text() == "old"
    with outputs(tmp_path, "old", "two.txt", "deep/er.txt") as new:
        (new / "old").mkdir()
        for name in ("old/three.txt", "two.txt", "deep/er.txt"):
            (new / name).write_text("new")
        assert (tmp_path / "two.txt").read_text() == "old"
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"old/three.txt", "two.txt", "deep/er.txt"}
    assert (tmp_path / "two.txt").read_text() == "new"


def test_equal_arrays_give_files_with_equal_bytes(tmp_path: Path) -> None:
    arrays = draw(20, 5, seed=3)
    for name in ("a", "b"):
        write(arrays, tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_zero_synthetic_digits_are_allowed() -> None:
    arrays = draw(0, 0, seed=3)
    assert arrays["x_train"].shape == arrays["x_test"].shape == (0, 28, 28)
    assert arrays["y_train"].shape == arrays["y_test"].shape == (0,)


def test_synthetic_digits_only_depend_on_the_seed() -> None:
    first, again, other = draw(60, 5, seed=4), draw(60, 5, seed=4), draw(60, 5, seed=5)
    np.testing.assert_array_equal(first["x_train"], again["x_train"])
    assert (first["x_train"] != other["x_train"]).any()


def test_low_resolution_digits_have_mnists_form_and_show_the_same() -> None:
    images = draw(200, 0, seed=3)["x_train"]
    seen = low_resolution(images, seed=1)
    assert (seen.shape, seen.dtype) == (images.shape, np.uint8)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(seen, images, strict=True)]
    assert np.mean(alike) > 0.7
    assert max(alike) < 1
    for image in seen:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) == 19
        mass = image / image.sum()
        assert abs((mass.sum(0) * np.arange(28)).sum() - 13.5) < 1.1
    np.testing.assert_array_equal(seen, low_resolution(images, seed=1))
    assert (seen != low_resolution(images, seed=2)).any()
    assert low_resolution(images[:0], seed=1).shape == (0, 28, 28)
    with pytest.raises(ValueError, match="without ink"):
        low_resolution(np.zeros((1, 28, 28), np.uint8), seed=1)
