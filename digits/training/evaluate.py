"""The pipeline's `evaluate` stage: `python -m digits.training.evaluate` measures the compiled network as the
service runs it. It determines the threshold of sure answers, and writes the model card, the metrics and the plots.
The test set is only used here."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from digits.model import Classifier, Model, ModelError, scale
from digits.training import measures, plots, tracking
from digits.training.arrays import IMAGES, read_both, sha256
from digits.training.mnist import origin
from digits.training.stage import ROOT, StageError, outputs, read_params, run

# decimal places of figures in cards and metrics: what differs between processors is smaller
DECIMALS = 6


@dataclass(frozen=True)
class Params:
    """`evaluate` in params.yaml. sure: the fraction of held-out digits that should be sure."""

    sure: float


def read_run(out: Path, images: Path) -> dict[str, Any]:
    """What metrics/training.json in `out` says about the run of train.py.

    Raises StageError if it, models/mnist.h5 or models/mnist.tflite is missing, or if they don't belong together.
    """
    needed = {"models/mnist.h5": "train", "metrics/training.json": "train", "models/mnist.tflite": "compile"}
    for name, stage in needed.items():
        if not (out / name).is_file():
            raise StageError(f"{out / name} is missing. Run `dvc repro {stage}`.")
    try:
        about = json.loads((out / "metrics" / "training.json").read_text())
        known = about["h5_sha256"], about["images_sha256"]
    except (ValueError, KeyError, TypeError):
        raise StageError(
            f"{out / 'metrics' / 'training.json'} is damaged. Run `dvc repro --force train`."
        ) from None
    for path, sha in zip((out / "models" / "mnist.h5", images), known, strict=True):
        if sha256(path) != sha:
            raise StageError(
                f"{path} does not belong to the run in {out / 'metrics' / 'training.json'}. Run `dvc repro`."
            )
    return about


def write_card(path: Path, h5: Path, tflite: Path, **facts: Any) -> None:
    """Write the card of a model: the JSON file beside it that says what it is, and by their hashes which files
    belong to it. It only depends on the model and its data, so that a stage that runs again writes the same bytes.

    Args:
        h5, tflite: the model's files.
        facts: further fields.
    """
    hashes = {"h5_sha256": sha256(h5), "tflite_sha256": sha256(tflite)}
    _write_json(path, {"name": h5.stem, "version": hashes["h5_sha256"][:12], **hashes, **facts})


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(_rounded(content), indent=2) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, DECIMALS) if isinstance(value, float) else value


def main() -> None:
    """Evaluate the network, and write its card, metrics and plots."""
    params = read_params("evaluate", Params)
    parser = argparse.ArgumentParser(description="Evaluate the network.")
    parser.add_argument(
        "--images", type=Path, default=IMAGES.path, help="the images that it was trained with"
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="the folder with models/ and metrics/")
    args = parser.parse_args()
    out: Path = args.out
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arrays, made, _ = read_both(args.images)
    about = read_run(out, args.images)
    h5, tflite = out / "models" / "mnist.h5", out / "models" / "mnist.tflite"
    try:
        classifier = Classifier(Model(tflite.read_bytes(), about["h5_sha256"][:12], {}))
    except ModelError:
        raise StageError(f"{tflite} can't be run. Run `dvc repro --force compile`.") from None

    def predict(images: np.ndarray) -> np.ndarray:
        return classifier.probabilities(scale(images))

    x, y = arrays["x_train"], arrays["y_train"]
    digits, outliers = (
        predict(images).max(1, initial=0) for images in (x[made["calibration"]], made["calibration_outliers"])
    )
    threshold = measures.sure_threshold(digits, outliers, params.sure)

    # neither the weights nor the temperature nor the threshold were fitted to these images
    probabilities, labels = predict(x[made["validation"]]), y[made["validation"]]
    kinds = made["validation_kinds"]
    strange = {str(kind): made["validation_outliers"][kinds == kind] for kind in dict.fromkeys(kinds)}
    validation: dict[str, Any] = measures.evaluate(probabilities, labels, threshold)
    validation["outliers"] = {
        kind: measures.evaluate_outliers(probabilities, predict(images), threshold)
        for kind, images in strange.items()
    }
    bins = measures.reliability(probabilities.max(1), probabilities.argmax(1) == labels)
    tested = predict(arrays["x_test"])
    test = measures.evaluate(tested, arrays["y_test"], threshold)
    predicted = tested.argmax(1)

    headline: dict[str, Any] = {
        "test": {name: test[name] for name in ("accuracy", "ece", "sure", "sure_and_wrong")},
        "sure_threshold": threshold,
    }
    if len(kinds):
        surest = predict(made["validation_outliers"]).max(1)
        headline["outliers"] = {"sure": float((surest >= threshold).mean())}
    used = sum(len(made[name]) for name in ("training", "calibration", "validation"))
    limited = used < len(x)
    with outputs(out, "metrics/metrics.json", "metrics/plots", "models/mnist.json") as new:
        _write_json(new / "metrics" / "metrics.json", headline)
        drawn = new / "metrics" / "plots"
        drawn.mkdir()
        plots.write_confusion(drawn / "confusion.csv", arrays["y_test"], predicted)
        plots.write_reliability(drawn / "reliability.csv", bins)
        plots.misclassified(arrays["x_test"], arrays["y_test"], predicted).save(drawn / "misclassified.png")
        plots.contact_sheet(strange).save(drawn / "outliers.png")
        write_card(
            new / "models" / "mnist.json",
            h5,
            tflite,
            libraries=about["libraries"],
            trained_on=origin(arrays) + (f", {used} images" if limited else ""),
            data_sha256=about["data_sha256"],
            images_sha256=about["images_sha256"],
            params=about["params"] | {"evaluate": {"sure": params.sure}},
            parameters=about["parameters"],
            temperature=about["temperature"],
            sure_threshold=threshold,
            validation=validation,
            test=test,
            confusion_matrix=measures.confusion_matrix(arrays["y_test"], predicted).tolist(),
        )
    tracking.log_run(out, register=not limited)
    print(f"Test loss: {test['loss']:.4f}")
    print(f"Test accuracy: {test['accuracy']:.4f}")
    print(f"To serve this model: DIGITS_MODEL={h5} make serve")
    if out != ROOT:
        print("models/ has not changed, because this was not a run of the pipeline.")


if __name__ == "__main__":
    run(main)
