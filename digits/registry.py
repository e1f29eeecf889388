"""Loads models from MLflow's registry with its REST API. A model is named by a file or by models:/NAME@ALIAS.
This module writes nothing to disk and needs no package of MLflow's.

https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

from digits.model import HDF5_MAGIC, MAX_FILE_BYTES, Model, ModelError

# how MLflow names a registered model
NAMED = re.compile(r"models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
# for the whole model; gunicorn's master handles no signals meanwhile
SECONDS = 20.0


def load(source: Path, load_file: Callable[[Path], Model]) -> Model:
    """Load the model from the file `source` with `load_file`, or from the registry at MLFLOW_REGISTRY_URI or
    MLFLOW_TRACKING_URI if `source` is models:/NAME@ALIAS or models:/NAME/VERSION.

    The registered model has three files: mnist.h5, mnist.tflite and mnist.json, the model card, which must contain
    the SHA-256 of the other two. Takes at most SECONDS, in addition to resolving host names. Raises ModelError.
    """
    uri = str(source)
    if not uri.startswith("models:/"):
        return load_file(source)
    found = NAMED.fullmatch(uri)
    if not found:
        raise ModelError(f"{uri} is neither models:/NAME@ALIAS nor models:/NAME/VERSION.")
    server, name, version = Server(os.environ), found["name"], found["version"]
    if alias := found["alias"]:
        version = server.ask("registered-models/alias", "model_version", "version", name=name, alias=alias)
    where = server.ask("model-versions/get-download-uri", "artifact_uri", name=name, version=version)
    h5, compiled, card = (server.artifact(where, f"mnist.{end}") for end in ("h5", "tflite", "json"))
    facts = _json(card, f"The model card of {uri}")
    sha256 = hashlib.sha256(h5).hexdigest()
    if facts.get("h5_sha256") != sha256 or not h5.startswith(HDF5_MAGIC):
        raise ModelError(f"{uri}: mnist.json was not written for this mnist.h5.")
    if facts.get("tflite_sha256") != hashlib.sha256(compiled).hexdigest():
        raise ModelError(f"{uri}: mnist.tflite was not compiled from this mnist.h5.")
    return Model(compiled, sha256[:12], facts)


class Server:
    """Fetches one model from an MLflow server. The address and the credentials come from the environment variables
    that MLflow's own clients read. Raises ModelError, also for an invalid address."""

    def __init__(self, environ: Any) -> None:
        url = environ.get("MLFLOW_REGISTRY_URI") or environ.get("MLFLOW_TRACKING_URI") or ""
        self.url = url.rstrip("/")
        if not re.match(r"https?://[^/]", self.url):
            form = "http://... or https://..."
            raise ModelError(f"MLFLOW_TRACKING_URI must be the address of an MLflow server, {form}")
        self.authorization = ""
        if token := environ.get("MLFLOW_TRACKING_TOKEN"):
            self.authorization = f"Bearer {token}"
        elif user := environ.get("MLFLOW_TRACKING_USERNAME"):
            pair = f"{user}:{environ.get('MLFLOW_TRACKING_PASSWORD', '')}".encode()
            self.authorization = f"Basic {base64.b64encode(pair).decode()}"
        self.deadline = time.monotonic() + SECONDS

    def ask(self, route: str, *names: str, **query: str) -> str:
        """The string at the path `names` in the registry's answer to a GET request."""
        body = self.get(f"/api/2.0/mlflow/{route}?{urlencode(query)}")
        answer: Any = _json(body, f"MLflow's answer to {route}")
        for name in names:
            answer = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(answer, str):
            raise ModelError(f"MLflow's answer has no {'.'.join(names)}.")
        return answer

    def artifact(self, where: str, name: str) -> bytes:
        """A file in the artifact folder `where`, which the server must serve itself."""
        parts = urlsplit(where)
        if parts.scheme != "mlflow-artifacts" or parts.netloc:
            raise ModelError(
                f"The model is at {where[:200]}, not on MLflow's server. Start that with --serve-artifacts."
            )
        return self.get(f"/api/2.0/mlflow-artifacts/artifacts{quote(parts.path)}/{name}")

    def get(self, path: str) -> bytes:
        """The body of the server's answer to GET `path`."""
        request = Request(self.url + path)  # noqa: S310  the address is http or https
        if self.authorization:
            # a redirect must not send it to another server
            request.add_unredirected_header("Authorization", self.authorization)
        what = path.partition("?")[0]
        parts, size = [], 0
        try:
            with urlopen(request, timeout=self._left()) as response:  # noqa: S310
                while part := response.read1(1 << 16):
                    parts.append(part)
                    size += len(part)
                    if size > MAX_FILE_BYTES:
                        raise ModelError(f"MLflow's {what} has more than {MAX_FILE_BYTES} bytes.")
                    self._left()
                if size < int(response.headers.get("Content-Length", size)):
                    raise ModelError(f"MLflow's {what} ended early.")
        except HTTPError as error:
            with error:
                said = error.read(1000).decode("utf-8", "replace")
            raise ModelError(f"MLflow answered {error.code} to {what}: {said[:300].strip()}") from None
        except (OSError, HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            reason = reason or type(error).__name__
            raise ModelError(f"The request to MLflow for {what} failed: {reason}") from None
        return b"".join(parts)

    def _left(self) -> float:
        """The seconds left until the deadline. Raises TimeoutError after it."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it took longer than {SECONDS:.0f} s")
        return left


def _json(body: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ModelError(f"{what} is not a JSON object.")
    return document
