"""Runs MLflow's clients, with the Python interpreter that has MLflow installed: `python mlflow_clients.py
FUNCTION URL`. It prints the result as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

from project import SAMPLE

IMAGE = SAMPLE["image"]
FLAT = [value for row in IMAGE for value in row]


def client(url: str) -> dict[str, Any]:
    """The answers that MLflow's client gets from the service at `url`."""
    host, port = url.removeprefix("http://").split(":")
    ours = ScoringServerClient(host, port)
    ours.wait_server_ready(timeout=10)
    frame = ours.invoke(pd.DataFrame([FLAT, FLAT])).get_predictions()
    array = ours.invoke(np.array([IMAGE], np.uint8)).get_predictions("ndarray")
    try:
        ours.invoke(np.zeros((1, 3)))
    except Exception as error:
        refused = str(error)
    return {
        "frame": [list(frame.shape), frame.idxmax(axis=1).tolist()],
        "array": [list(array.shape), array.argmax(1).tolist()],
        "refused": refused,
    }


class Digits(mlflow.pyfunc.PythonModel):
    """A model that gets its answers from the service."""

    def __init__(self, url: str) -> None:
        self.url = url

    def predict(self, context: Any, model_input: Any, params: Any = None) -> np.ndarray:
        pixels = np.asarray(model_input, np.uint8).reshape(-1, 784).tobytes()
        request = urllib.request.Request(
            f"{self.url}/invocations", pixels, {"Content-Type": "application/octet-stream"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return np.array(json.load(response)["predictions"])


def pyfunc(url: str) -> list[dict[str, Any]]:
    """The answers of MLflow's scoring server to bodies in each format, with a model that calls the service."""
    frame = pd.DataFrame([FLAT, FLAT])
    bodies = [
        ("application/json", json.dumps({"inputs": [IMAGE, IMAGE]})),
        ("application/json", json.dumps({"instances": [FLAT]})),
        ("application/json", json.dumps({"dataframe_split": frame.to_dict(orient="split")})),
        ("text/csv", frame.to_csv(index=False)),
        ("text/csv", frame.rename(columns="x{}".format).to_csv(index=False)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pyfunc.save_model(f"{folder}/model", python_model=Digits(url), pip_requirements=[])
        model = mlflow.pyfunc.load_model(f"{folder}/model")
        answers = []
        for kind, body in bodies:
            answer = scoring_server.invocations(body, kind, model, None)
            answers.append(
                {"kind": kind, "body": body, "status": answer.status, "answer": json.loads(answer.response)}
            )
    return answers


def tracked(url: str, alias: str) -> dict[str, Any]:
    """The run on the MLflow server that made the registered model with an alias."""
    mlflow.set_tracking_uri(url)
    known = MlflowClient()
    version = known.get_model_version_by_alias("digits", alias)
    run = known.get_run(version.run_id)
    steps = {
        name: [m.step for m in known.get_metric_history(version.run_id, name)] for name in run.data.metrics
    }
    files = [
        file.path
        for folder in ("model", "metrics", "metrics/plots")
        for file in known.list_artifacts(version.run_id, folder)
    ]
    return {
        "version": version.version,
        "experiment": known.get_experiment(run.info.experiment_id).name,
        "status": run.info.status,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "steps": steps,
        "tags": run.data.tags,
        "files": files,
        "runs": len(known.search_runs([run.info.experiment_id])),
    }


def promote(url: str, version: str) -> str:
    """Move the alias `champion` to a version."""
    mlflow.set_tracking_uri(url)
    MlflowClient().set_registered_model_alias("digits", "champion", version)
    return version


if __name__ == "__main__":
    todo: dict[str, Any] = {"client": client, "pyfunc": pyfunc, "tracked": tracked, "promote": promote}
    print(json.dumps(todo[sys.argv[1]](*sys.argv[2:])))
