"""Checks the operators' objects in a file with typed models: `python kubernetes_models.py FILE`. It prints a line
for each error, such as an unknown field, and exits with 1 if there is any. It needs a Python interpreter that has
the models installed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import kserve
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

from kubernetes import client

PYDANTIC = {"ScaledObject": ScaledObject, "PrometheusRule": PrometheusRule, "ServiceMonitor": ServiceMonitor}
PLAIN: dict[str, Any] = {"str": str, "int": int, "bool": bool}


def wrong_in(document: dict[str, Any]) -> list[str]:
    """The errors in an object."""
    kind = document["kind"]
    if kind == "InferenceService":
        return wrong_in_kserve(document, "V1beta1InferenceService", kind)
    # these models ignore unknown fields, which are then missing when the object is written again
    try:
        again = (
            PYDANTIC[kind].model_validate(document).model_dump(mode="json", by_alias=True, exclude_unset=True)
        )
    except ValueError as error:
        return [f"{kind}: {error}"]
    return differences(document, again, kind)


def wrong_in_kserve(value: Any, kind: str, where: str) -> list[str]:
    """The errors in a value that should be of `kind`, a type in KServe's or Kubernetes' models."""
    if inner := re.fullmatch(r"list\[(.*)\]", kind):
        if not isinstance(value, list):
            return [f"{where} is not a list"]
        return [w for i, each in enumerate(value) for w in wrong_in_kserve(each, inner[1], f"{where}[{i}]")]
    if plain := PLAIN.get(kind):
        return [] if type(value) is plain else [f"{where} is not of type {kind}"]
    if model := getattr(client, kind, None):
        try:
            model.model_validate(value)
        except ValueError as error:
            return [f"{where}: {error}"]
        return []
    model = getattr(kserve, kind)
    fields = {name: model.openapi_types[attribute] for attribute, name in model.attribute_map.items()}
    unknown = [f"{where}.{name} is not a field of {kind}" for name in value.keys() - fields.keys()]
    known = [(name, value[name]) for name in value if name in fields]
    return unknown + [
        w for name, each in known for w in wrong_in_kserve(each, fields[name], f"{where}.{name}")
    ]


def differences(given: Any, found: Any, where: str) -> list[str]:
    """The places where `found` differs from `given`."""
    if isinstance(given, dict) and isinstance(found, dict):
        names = sorted(given.keys() | found.keys())
        return [d for n in names for d in differences(given.get(n), found.get(n), f"{where}.{n}")]
    if isinstance(given, list) and isinstance(found, list) and len(given) == len(found):
        pairs = zip(given, found, strict=True)
        return [d for i, (one, other) in enumerate(pairs) for d in differences(one, other, f"{where}[{i}]")]
    return (
        [] if given == found else [f"{where}: {json.dumps(given)} becomes {json.dumps(found)} in the model"]
    )


if __name__ == "__main__":
    documents = [
        document
        for document in yaml.safe_load_all(Path(sys.argv[1]).read_text())
        if document["kind"] in (*PYDANTIC, "InferenceService")
    ]
    wrong = [each for document in documents for each in wrong_in(document)]
    print(*wrong, f"{len(documents)} objects read", sep="\n")
    sys.exit(1 if wrong else 0)
