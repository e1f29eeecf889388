"""Compiling .h5 files for serving, and refusing unsafe ones before Keras reads them."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from digits.compiling import load
from digits.model import Classifier, ModelError
from digits.training.compile import CompileError, check, compile_h5, main
from project import ROOT


@dataclass
class Outcome:
    """The result of compiling an .h5: the first bytes of the .tflite or the error, and whether code of any .h5 has
    been run so far."""

    begin: bytes
    error: str
    ran: bool


@dataclass
class Made:
    """A folder with .h5 files, and the result of compiling each."""

    folder: Path
    outcomes: dict[str, Outcome]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    # TensorFlow and Keras warn of their own code
    with warnings.catch_warnings(action="ignore"), pytest.MonkeyPatch.context() as monkeypatch:
        make(folder)
        stub_errors_of_keras(folder, monkeypatch)
        # building a model may already have run its layer
        (folder / "ran").unlink(missing_ok=True)
        return Made(folder, {path.stem: outcome(path) for path in sorted(folder.glob("*.h5"))})


def outcome(path: Path) -> Outcome:
    """Compile an .h5."""
    compiled, error = b"", ""
    try:
        compiled = compile_h5(path)
    except CompileError as refusal:
        error = str(refusal)
    return Outcome(compiled[:8], error, (path.parent / "ran").exists())


def make(folder: Path) -> None:
    """Save models of many kinds. The code in those that have code writes the file `ran`."""
    # imports TensorFlow, which takes seconds
    import keras
    from keras import layers

    # Keras also saves the variables that a lambda uses, so this must be a string
    ran = str(folder / "ran")

    @keras.saving.register_keras_serializable("mine")
    class Own(layers.Layer):
        def call(self, x: Any) -> Any:
            open(ran, "w").close()
            return x

    @keras.saving.register_keras_serializable("mine")
    def own(x: Any) -> Any:
        open(ran, "w").close()
        return x

    def code() -> Any:
        return layers.Lambda(lambda x: (open(ran, "w"), x)[1])

    def image() -> Any:
        return layers.Input((28, 28, 1))

    def softmax(**more: Any) -> Any:
        return layers.Dense(10, activation="softmax", **more)

    inner = [image(), layers.Conv2D(2, 3), layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D()]
    regular = {"kernel_regularizer": "l2", "kernel_constraint": "max_norm"}
    kinds: dict[str, list[Any]] = {
        "good": [image(), layers.Flatten(), softmax()],
        "lambda": [image(), layers.Flatten(), code(), softmax()],
        "nested lambda": [
            image(),
            keras.Sequential([image(), keras.Sequential([image(), layers.Flatten(), code()])]),
            softmax(),
        ],
        "nested": [
            image(),
            keras.Sequential([*inner, layers.Dropout(0.5), layers.Flatten()]),
            softmax(**regular),
        ],
        "custom": [image(), layers.Flatten(), Own(), softmax()],
        "function": [image(), layers.Flatten(), layers.Dense(10, activation=own)],
        "input": [layers.Input((32, 32, 1)), layers.Flatten(), softmax()],
        "output": [image(), layers.Flatten(), layers.Dense(11, activation="softmax")],
        "logits": [image(), layers.Flatten(), layers.Dense(10)],
        "half": [image(), layers.Flatten(dtype="mixed_float16"), softmax(dtype="mixed_float16")],
        "recurrent": [image(), layers.Reshape((28, 28)), layers.LSTM(4), softmax()],
        "wrapped": [
            image(),
            layers.TimeDistributed(layers.Dense(2)),
            layers.ActivityRegularization(),
            layers.Flatten(),
            softmax(),
        ],
    }
    for kind, steps in kinds.items():
        keras.Sequential(steps).save(folder / f"{kind}.h5")
    keras.Sequential(kinds["good"]).save_weights(folder / "only.weights.h5")
    (folder / "truncated.h5").write_bytes((folder / "good.h5").read_bytes()[:-3000])


def stub_errors_of_keras(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make loading some files fail with errors like Keras's, which change with its version."""
    import keras

    load_model_of_keras = keras.models.load_model
    failing = {
        "no message": NotImplementedError(),
        "two lines": ValueError("no\nway"),
        "described": TypeError(
            "can't read {a: long, description: x}.\n\nException encountered: no groups\nmore"
        ),
    }

    def load_model(path: Path, compile: bool) -> Any:
        if path.stem in failing:
            raise failing[path.stem]
        return load_model_of_keras(path, compile=compile)

    monkeypatch.setattr("keras.models.load_model", load_model)
    for name in failing:
        (folder / f"{name}.h5").write_bytes((folder / "good.h5").read_bytes())


def compile_it(path: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "digits.training.compile", str(path), str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_start_without_tensorflow_uses_what_the_command_has_compiled(
    made: Made, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for names in (["good.h5", "good.tflite"], ["logits.h5"]):
        paths = [str(made.folder / name) for name in names]
        monkeypatch.setattr("sys.argv", ["digits.training.compile", *paths])
        with warnings.catch_warnings(action="ignore"):
            main()
    assert capfd.readouterr().out == ""
    assert (made.folder / "good.tflite").read_bytes()[4:8] == b"TFL3"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    Classifier(load(made.folder / "good.h5"))
    classifier = Classifier(load(made.folder / "logits.h5"))
    # a softmax was added to its outputs
    assert classifier.probabilities(np.ones((3, 28, 28, 1), np.float32)).sum(1) == pytest.approx(1)
    with pytest.raises(ModelError, match=r"run `python -m digits.training.compile \S*nested.h5`"):
        load(made.folder / "nested.h5")


@pytest.mark.parametrize("kind", ["good", "nested", "logits", "wrapped"])
def test_a_good_model_is_compiled(made: Made, kind: str) -> None:
    assert made.outcomes[kind].error == ""
    assert made.outcomes[kind].begin[4:] == b"TFL3"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("lambda", "Lambda layer"),
        ("nested lambda", "Lambda layer"),
        ("custom", "not on the list of safe ones: mine"),
        ("function", "not on the list of safe ones"),
        ("input", "must have (None, 28, 28, 1) -> (None, 10)"),
        ("output", "(None, 11)"),
        ("truncated", "truncated.h5 is not a model that Keras saved"),
        ("no message", "no message.h5 can't be loaded by this version of Keras: NotImplementedError"),
        ("half", "uses 16-bit floats"),
        ("recurrent", "LiteRT lacks an operation that one of these layers needs: Dense, LSTM, Reshape"),
        ("only.weights", "contains no model, only weights"),
        ("described", "described.h5 can't be loaded by this version of Keras: no groups"),
        ("two lines", "two lines.h5 can't be loaded by this version of Keras: no"),
    ],
)
def test_a_model_that_must_not_be_served_is_refused(made: Made, kind: str, message: str) -> None:
    outcome = made.outcomes[kind]
    assert message in outcome.error
    assert len(outcome.error.splitlines()) == 1
    assert outcome.begin == b""
    # for all models so far: none of their code was run
    assert not outcome.ran


def test_the_command_refuses_a_model_with_code_in_one_line(made: Made, tmp_path: Path) -> None:
    done = compile_it(made.folder / "lambda.h5", tmp_path / "out.tflite")
    assert done.returncode == 1
    assert "Lambda layer" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.tflite").exists()
    assert not (made.folder / "ran").exists()


CONFIG = {
    "class_name": "Sequential",
    "config": {
        "name": "s",
        "layers": [
            {"class_name": "InputLayer", "config": {"batch_shape": [None, 28, 28, 1], "dtype": "float32"}},
            {"class_name": "Flatten", "config": {}},
            {"class_name": "Dense", "config": {"units": 10, "activation": "softmax"}},
        ],
    },
}


def written(path: Path, config: object) -> Path:
    """An .h5 with this configuration and without weights."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config if isinstance(config, bytes) else json.dumps(config)
        file.create_group("model_weights")
    return path


def with_part(part: object) -> dict[str, Any]:
    """CONFIG with this activation in a layer, which is the deepest place in a configuration."""
    config: dict[str, Any] = copy.deepcopy(CONFIG)
    config["config"]["layers"][2]["config"]["activation"] = part
    return config


@pytest.mark.parametrize(
    "part",
    [
        {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"},
        {"module": "builtins", "class_name": "eval", "config": {}, "registered_name": None},
        {"module": "os", "class_name": "function", "config": "system", "registered_name": None},
        {"module": "os", "class_name": "Dense", "config": {}},
        {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "http://127.0.0.1/"}},
        {"module": "keras.saving", "class_name": "load_model", "config": {"filepath": "x.keras"}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "x"}},
        {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gASV"}},
        {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/hostname"}},
        {
            "module": "keras.layers",
            "class_name": "TextVectorization",
            "config": {"vocabulary": "/etc/hostname"},
        },
        {"module": "keras.layers", "class_name": "JaxLayer", "config": {}},
        {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": "mine>Dense"},
        {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}},
        {"class_name": "__typespec__", "spec_name": "x", "module": "os", "registered_name": "x"},
        {"class_name": "__numpy__", "config": {"value": [0], "dtype": "object"}},
        {"class_name": ["Dense"], "config": {}},
        {"class_name": "Wrapper", "config": {"layer": {"class_name": "Lambda", "config": {}}}},
    ],
    ids=lambda part: f"{part.get('module')}.{part['class_name']}",
)
def test_a_configuration_with_anything_but_plain_layers_is_refused(tmp_path: Path, part: object) -> None:
    check(written(tmp_path / "plain.h5", CONFIG))
    deeper = with_part({"class_name": "ReLU", "config": {"a": [[part]]}})
    for number, config in enumerate((with_part(part), deeper)):
        with pytest.raises(CompileError, match=r"not on the list of safe ones|would run code"):
            check(written(tmp_path / f"{number}.h5", config))


@pytest.mark.parametrize(
    "config",
    [b"", b"\x80\x04\x95", b"[" * 30_000, b"{}x", json.dumps(CONFIG).encode("utf-16"), b"\xff"],
    ids=range(6),
)
def test_a_configuration_that_is_not_json_is_refused(tmp_path: Path, config: bytes) -> None:
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file.attrs["model_config"] = np.void(config) if config else config
    with pytest.raises(CompileError, match="not a model that Keras saved"):
        check(tmp_path / "bad.h5")


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(800))
    makers: list[Callable[[h5py.Group], object]] = [
        lambda group: group.create_dataset("w", (100,), "f8", external=[(str(tmp_path / "secret"), 0, 800)]),
        lambda group: group.__setitem__("w", h5py.ExternalLink("other.h5", "/x")),
        lambda group: group.__setitem__("w", h5py.SoftLink("/elsewhere")),
        lambda group: group.create_virtual_dataset("w", layout()),
    ]

    def layout() -> h5py.VirtualLayout:
        made = h5py.VirtualLayout((100,), "f8")
        made[:] = h5py.VirtualSource("other.h5", "x", (100,))
        return made

    for number, make_it in enumerate(makers):
        path = written(tmp_path / f"{number}.h5", CONFIG)
        with h5py.File(path, "a") as file:
            make_it(file["model_weights"])
        with pytest.raises(CompileError, match="refers to another place"):
            check(path)


def test_a_small_file_that_declares_huge_weights_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "huge.h5", CONFIG)
    with h5py.File(path, "a") as file:
        file["model_weights"].create_dataset("w", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))
    assert path.stat().st_size < 100_000
    with pytest.raises(CompileError, match="declares 4398046511104 bytes"):
        check(path)


def test_circular_links_are_followed_once(tmp_path: Path) -> None:
    path = written(tmp_path / "circle.h5", CONFIG)
    with h5py.File(path, "a") as file:
        file["model_weights/again"] = file["model_weights"]
    check(path)


def test_the_shipped_model_is_accepted() -> None:
    check(ROOT / "models" / "mnist.h5")


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(4096), b"no"])
def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.h5").write_bytes(content)
    with pytest.raises(CompileError, match="is not a model that Keras saved") as error:
        check(tmp_path / "bad.h5")
    assert len(str(error.value).splitlines()) == 1
