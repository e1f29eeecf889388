"""Which .h5 files are compiled for serving and which are refused before Keras may touch them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

MAKE = """
import sys
import keras
from keras import layers
kind, path, mark = sys.argv[1:]
steps = {
    "good": [layers.Input((28, 28, 1)), layers.Flatten(), layers.Dense(10, activation="softmax")],
    "lambda": [layers.Input((28, 28, 1)), layers.Flatten(), layers.Lambda(lambda x: (open(mark, "w"), x)[1]),
               layers.Dense(10, activation="softmax")],
    "input": [layers.Input((32, 32, 1)), layers.Flatten(), layers.Dense(10, activation="softmax")],
    "output": [layers.Input((28, 28, 1)), layers.Flatten(), layers.Dense(11, activation="softmax")],
}[kind]
keras.Sequential(steps).save(path)
"""


def make(kind: str, folder: Path) -> Path:
    """An .h5 of that kind; a Lambda layer that runs leaves a file `ran`."""
    path = folder / f"{kind}.h5"
    mark = folder / "ran"
    done = subprocess.run(
        [sys.executable, "-c", MAKE, kind, str(path), str(mark)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # building the model may have run the layer already
    mark.unlink(missing_ok=True)
    return path


def compile_it(path: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "digits.compile", str(path), str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_good_model_is_compiled_and_nothing_printed(tmp_path: Path) -> None:
    done = compile_it(make("good", tmp_path), tmp_path / "out.tflite")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (tmp_path / "out.tflite").read_bytes()[4:8] == b"TFL3"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("lambda", "Lambda layer"),
        ("input", "(None, 28, 28, 1) -> (None, 10) is wanted"),
        ("output", "(None, 11)"),
    ],
)
def test_a_model_that_must_not_be_served_is_refused(tmp_path: Path, kind: str, message: str) -> None:
    done = compile_it(make(kind, tmp_path), tmp_path / "out.tflite")
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.tflite").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(4096), b"no"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.h5").write_bytes(content)
    done = compile_it(tmp_path / "bad.h5", tmp_path / "out.tflite")
    assert done.returncode == 1
    assert "is not a model that Keras saved" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    path = make("good", tmp_path)
    path.write_bytes(path.read_bytes()[:-3000])
    done = compile_it(path, tmp_path / "out.tflite")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
