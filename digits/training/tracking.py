"""Logs trained models on the MLflow server that MLFLOW_TRACKING_URI names. DVC still versions data and models, and
errors here don't fail the run. See docs/mlflow.md."""

from __future__ import annotations

import csv
import importlib.util
import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from digits.training.stage import ROOT

# of the experiment and of the registered model
NAME = "digits"
ALIAS, PROMOTED = "candidate", "champion"
MODEL_FILES = ("mnist.h5", "mnist.tflite", "mnist.json")

log = logging.getLogger("digits.train")


def log_run(out: Path, register: bool) -> None:
    """Log the run that wrote models/ and metrics/ in `out`: parameters, metrics of each epoch, test results,
    model card, model, plots, git commit and data hash. Errors are logged as warnings.

    register: also make the model a version of the registered model `digits`, with the alias `candidate`.
    """
    if not _wanted():
        return
    try:
        run = _logged(out, register)
        log.info("logged to MLflow", extra={"run_id": run})
    except Exception as error:
        log.warning("the run could not be logged to MLflow: %s", error)


def promote(version: str) -> None:
    """Move the alias `champion` to the model that has the alias `candidate`, if that is this version. Errors are
    logged as warnings."""
    if not _wanted():
        return
    try:
        from mlflow import MlflowClient

        client = MlflowClient()
        registered = client.get_model_version_by_alias(NAME, ALIAS)
        if registered.tags.get("version") != version:
            log.warning("MLflow's %s is not %s: the alias %s stays", ALIAS, version, PROMOTED)
            return
        client.set_registered_model_alias(NAME, PROMOTED, registered.version)
        log.info("MLflow's alias moved", extra={"alias": PROMOTED, "model_version": version})
    except Exception as error:
        log.warning("MLflow's alias %s could not be moved: %s", PROMOTED, error)


def _wanted() -> bool:
    """Whether an MLflow server is named and its client installed."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return False
    if importlib.util.find_spec("mlflow") is None:
        log.warning("MLFLOW_TRACKING_URI is set, but mlflow-skinny is not installed: nothing is logged there")
        return False
    # by default MLflow retries for many minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    return True


def _logged(out: Path, register: bool) -> str:
    """Log the run, and return its id in MLflow."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    card = json.loads((out / "models" / "mnist.json").read_text())
    if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
        mlflow.set_experiment(NAME)
    # if an exception leaves this block, MLflow marks the run as failed
    with mlflow.start_run() as run:
        now = int(time.time() * 1000)
        names = ("test", "validation", "sure_threshold", "temperature", "parameters")
        figures = {name: card[name] for name in names}
        metrics = [
            *_epochs(out / "metrics" / "training.csv", now),
            *((name, value, now, 0) for name, value in _flat(figures)),
        ]
        tags = {
            "mlflow.source.git.commit": revision(),
            "data_sha256": card["data_sha256"],
            "trained_on": card["trained_on"],
            "model_version": card["version"],
        }
        client, run_id = MlflowClient(), run.info.run_id
        client.log_batch(
            run_id,
            metrics=[Metric(*metric) for metric in metrics],
            params=[Param(name, str(value)) for name, value in _flat(card["params"])],
            tags=[RunTag(name, str(value)) for name, value in tags.items()],
        )
        for name in MODEL_FILES:
            mlflow.log_artifact(str(out / "models" / name), "model")
        mlflow.log_artifacts(str(out / "metrics"), "metrics")
        if register:
            _register(client, f"{run.info.artifact_uri}/model", run_id, card["version"])
    return run_id


def revision(project: Path = ROOT) -> str | None:
    """The git commit of the training code, with "-dirty" appended if that code has changes; None without git.

    The training code is params.yaml and all dependencies of the stages in dvc.yaml.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=project, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"].values()
        trains = sorted({path for stage in stages for path in stage["deps"]})
        dirty = git("status", "--porcelain", "--", "params.yaml", *trains)
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _register(client: Any, source: str, run_id: str, version: str) -> None:
    """Create a version of the registered model from the files at `source`."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(NAME, source, run_id, tags={"version": version})
    client.set_registered_model_alias(NAME, ALIAS, made.version)


def _epochs(path: Path, now: int) -> Iterator[tuple[str, float, int, int]]:
    """The figures that train.py wrote for each epoch, as (name, value, time, epoch)."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            epoch = int(row.pop("epoch"))
            for name, value in row.items():
                known = f"eval.{name.removeprefix('val_')}" if name.startswith("val_") else f"train.{name}"
                yield known, float(value), now, epoch


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested dictionaries, with dotted names."""
    if not isinstance(value, dict):
        yield name, value
        return
    for inner, each in value.items():
        yield from _flat(each, f"{name}.{inner}" if name else str(inner))
