"""Logs trained models on the MLflow server that MLFLOW_TRACKING_URI names. DVC still versions data and models, and
errors here don't fail the run. See docs/mlflow.md."""

from __future__ import annotations

import csv
import importlib.util
import json
import logging
import os
import subprocess
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

    card = json.loads((out / "models" / "mnist.json").read_text())
    if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
        mlflow.set_experiment(NAME)
    # if an exception leaves this block, MLflow marks the run as failed
    with mlflow.start_run() as run:
        names = ("test", "validation", "sure_threshold", "temperature", "parameters")
        mlflow.log_metrics(dict(_flat({name: card[name] for name in names})))
        with (out / "metrics" / "training.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                epoch = int(row.pop("epoch"))
                mlflow.log_metrics({_known(name): float(row[name]) for name in row}, epoch)
        mlflow.log_params(dict(_flat(card["params"])))
        mlflow.set_tags(
            {
                "mlflow.source.git.commit": revision(),
                "data_sha256": card["data_sha256"],
                "trained_on": card["trained_on"],
                "model_version": card["version"],
            }
        )
        for name in MODEL_FILES:
            mlflow.log_artifact(str(out / "models" / name), "model")
        mlflow.log_artifacts(str(out / "metrics"), "metrics")
        if register:
            client = mlflow.MlflowClient()
            if not client.search_registered_models(f"name='{NAME}'"):
                client.create_registered_model(NAME)
            source, tags = f"{run.info.artifact_uri}/model", {"version": card["version"]}
            made = client.create_model_version(NAME, source, run.info.run_id, tags=tags)
            client.set_registered_model_alias(NAME, ALIAS, made.version)
    return str(run.info.run_id)


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


def _known(name: str) -> str:
    """What MLflow calls a figure of an epoch."""
    return f"eval.{name.removeprefix('val_')}" if name.startswith("val_") else f"train.{name}"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested dictionaries, with dotted names."""
    if not isinstance(value, dict):
        yield name, value
        return
    for inner, each in value.items():
        yield from _flat(each, f"{name}.{inner}" if name else str(inner))
