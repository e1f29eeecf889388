"""kubernetes/: checks the manifests that `kubectl kustomize` renders with Kubernetes' schemas, the operators'
typed models and checkov, and compares them with the service. `make kubernetes-check` runs all of these tests, and
`make test` runs those that need no tools. None needs a cluster."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from digits.web.settings import Settings
from project import ROOT
from service import described_statuses

FOLDER = ROOT / "kubernetes"
OVERLAYS = ("dev", "prod", "kserve")
# the overlays, and prod with the other autoscaler
VARIANTS = (*OVERLAYS, "keda")
CORE = (
    "Namespace",
    "Service",
    "Deployment",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "HorizontalPodAutoscaler",
)
LABEL = {"app.kubernetes.io/name": "digits"}

with_tools = pytest.mark.kubernetes


def read(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def pods() -> dict[str, dict[str, Any]]:
    """The specs of the pods in the manifests."""
    (deployment,), (inference,) = read("base/deployment.yaml"), read("overlays/kserve/inference.yaml")
    return {
        "deployment": deployment["spec"]["template"]["spec"],
        "kserve": inference["spec"]["predictor"],
    }


def test_the_prometheus_rules_are_those_of_compose(tmp_path: Path) -> None:
    generated = tmp_path / "rules.yaml"
    subprocess.run(["make", "--silent", "kubernetes", f"RULES={generated}"], cwd=ROOT, check=True)
    written = (FOLDER / "components/monitoring/rules.yaml").read_text()
    assert written == generated.read_text(), "out of date: run `make kubernetes`"
    (rule,) = read("components/monitoring/rules.yaml")
    files = [yaml.safe_load((ROOT / "monitoring" / name).read_text()) for name in ("rules.yml", "alerts.yml")]
    assert rule["spec"]["groups"] == [group for file in files for group in file["groups"]]


@pytest.mark.parametrize("kind", ["deployment", "kserve"])
def test_a_pod_has_time_to_finish_its_requests(kind: str) -> None:
    pod = pods()[kind]
    (container,) = pod["containers"]
    _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    grace = next(int(e["value"]) for e in container["env"] if e["name"] == "DIGITS_GRACE_SECONDS")
    # docs/settings.md: a worker without requests takes up to 3 s to stop
    assert pod["terminationGracePeriodSeconds"] >= int(seconds) + grace + 3


@pytest.mark.parametrize("kind", ["deployment", "kserve"])
def test_ports_probes_user_and_settings_are_those_of_the_service(kind: str) -> None:
    (container,) = pods()[kind]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"PORT={ports['http']}" in dockerfile
    known = {"PROTOCOL"} if kind == "kserve" else set()
    environ = {each["name"]: each["value"] for each in container["env"] if each["name"] not in known}
    settings = Settings.from_env(environ)
    assert environ.keys() <= {setting.metadata["env"] for setting in Settings.__dataclass_fields__.values()}
    assert settings.metrics_bind.rpartition(":")[2] == str(ports["metrics"])
    assert settings.host == Settings.host
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container[probe]["httpGet"]
        assert ports[request["port"]] == ports["http"]
        assert 200 in described_statuses("GET", request["path"])
    user = re.search(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)
    assert user
    context = pods()[kind]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user[1]), int(user[2]))


def test_the_inference_service_has_the_same_pod_as_the_deployment() -> None:
    deployment, kserve = pods()["deployment"], pods()["kserve"]
    (ours,), (theirs,) = deployment.pop("containers"), kserve.pop("containers")
    named = {"name": "kserve-container", "imagePullPolicy": "Always"}
    protocol = {"name": "PROTOCOL", "value": "v2"}
    assert theirs == ours | named | {"env": [*ours["env"], protocol]}
    del deployment["topologySpreadConstraints"]
    assert deployment.items() <= kserve.items()
    assert kserve.keys() - deployment.keys() == {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}


@pytest.mark.parametrize("kind", ["deployment", "kserve"])
def test_a_pod_has_least_privilege(kind: str) -> None:
    pod = pods()[kind]
    (container,) = pod["containers"]
    # the Pod Security Standard `restricted`, and a read-only root
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    volumes = {volume["name"]: volume["emptyDir"]["medium"] for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert mounts == {"/tmp": "Memory", "/dev/shm": "Memory"}  # noqa: S108


# with kubectl, schemas, models and checkov


def tool(name: str) -> str:
    folder = os.environ.get("DEPLOY_TOOLS")
    assert folder, "run by `make kubernetes-check`, which installs the tools"
    return str(Path(folder) / name)


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with the rendered overlays, as `kubectl apply -k` would send them."""
    folder = tmp_path_factory.mktemp("rendered")
    keda = folder / "tree" / "overlays" / "keda" / "kustomization.yaml"
    for file in FOLDER.rglob("*.yaml"):
        copy = folder / "tree" / file.relative_to(FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    keda.parent.mkdir()
    prod = (FOLDER / "overlays" / "prod" / "kustomization.yaml").read_text()
    assert "components/autoscaling" in prod
    keda.write_text(prod.replace("components/autoscaling", "components/keda"))
    files = {}
    for name in VARIANTS:
        done = run(tool("kubectl"), "kustomize", folder / "tree" / "overlays" / name)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        files[name] = folder / f"{name}.yaml"
        files[name].write_text(done.stdout)
    return files


def objects(file: Path) -> dict[str, dict[str, Any]]:
    """The objects in a file by kind. There must be only one of each kind."""
    documents = list(yaml.safe_load_all(file.read_text()))
    by_kind = {document["kind"]: document for document in documents}
    assert len(by_kind) == len(documents)
    return by_kind


@with_tools
def test_the_overlays_contain_the_expected_objects(rendered: dict[str, Path]) -> None:
    base = set(CORE) - {"HorizontalPodAutoscaler"}
    monitored = {"ServiceMonitor", "PrometheusRule"}
    kinds = {name: objects(file).keys() for name, file in rendered.items()}
    assert kinds == {
        "dev": base,
        "prod": {*base, *monitored, "HorizontalPodAutoscaler"},
        "keda": {*base, *monitored, "ScaledObject"},
        "kserve": {"Namespace", "InferenceService"},
    }
    for name, file in rendered.items():
        found = objects(file)
        namespace = found.pop("Namespace")["metadata"]
        assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        assert {each["metadata"]["namespace"] for each in found.values()} == {namespace["name"]}
        if name == "kserve":
            continue
        spec = found["Deployment"]["spec"]
        assert spec.get("replicas") == (1 if name == "dev" else None)
        assert (spec["template"]["spec"]["containers"][0]["image"] == "digits:dev") == (name == "dev")


@with_tools
@pytest.mark.parametrize("name", ["dev", "prod", "keda"])
def test_all_selectors_and_references_match(rendered: dict[str, Path], name: str) -> None:
    found = objects(rendered[name])
    deployment, service = found["Deployment"], found["Service"]
    pod = deployment["spec"]["template"]
    assert pod["metadata"]["labels"] == LABEL
    for kind, selector in (
        ("Deployment", deployment["spec"]["selector"]["matchLabels"]),
        ("Service", service["spec"]["selector"]),
        ("PodDisruptionBudget", found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]),
        ("NetworkPolicy", found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]),
    ):
        assert selector == LABEL, kind
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    policed = {port["port"] for rule in found["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]}
    assert policed == ports
    for kind in {"HorizontalPodAutoscaler", "ScaledObject"} & found.keys():
        target = found[kind]["spec"]["scaleTargetRef"]
        assert target == {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": deployment["metadata"]["name"],
        }
    if name != "dev":
        monitor = found["ServiceMonitor"]["spec"]
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        # alerts ask for job="digits"
        assert service["metadata"]["labels"][monitor["jobLabel"]] == "digits"
        assert monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


def validated(file: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Check a file with Kubernetes' schemas of the oldest and newest supported versions. Unknown fields are
    errors."""
    core = [each for each in yaml.safe_load_all(file.read_text()) if each["kind"] in CORE]
    (folder / "core.yaml").write_text(yaml.safe_dump_all(core))
    versions = ("-k", "1.27", "-k", "1.32", "-k", "1.37")
    return run(tool("kubernetes-validate"), "--strict", "--no-warn", *versions, folder / "core.yaml")


def modelled(file: Path) -> subprocess.CompletedProcess[str]:
    return run(tool("python"), "-W", "ignore", ROOT / "tests" / "support" / "kubernetes_models.py", file)


@with_tools
@pytest.mark.parametrize("name", VARIANTS)
def test_the_api_knows_every_field(rendered: dict[str, Path], name: str, tmp_path: Path) -> None:
    done = validated(rendered[name], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    custom = objects(rendered[name]).keys() - set(CORE)
    done = modelled(rendered[name])
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(custom)} objects read" in done.stdout


@with_tools
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("prod", "terminationGracePeriodSeconds", "terminationGraceSeconds"),
        ("prod", "minAvailable: 1", "minAvailable: []"),
        ("prod", "averageUtilization", "averageUse"),
        ("prod", "containerPort: 5000", "containerPort: http"),
        ("prod", "jobLabel", "jobsLabel"),
        ("prod", "    - alert: DigitsDown", "    - alarm: DigitsDown"),
        ("keda", "maxReplicaCount", "maxReplicas"),
        ("kserve", "scaleMetric", "scaleMeter"),
        ("kserve", "readinessProbe", "readyProbe"),
    ],
)
def test_a_mistake_is_found(
    rendered: dict[str, Path], name: str, before: str, after: str, tmp_path: Path
) -> None:
    text = rendered[name].read_text()
    assert before in text
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace(before, after))
    assert validated(wrong, tmp_path).returncode or modelled(wrong).returncode


@with_tools
@pytest.mark.parametrize("name", VARIANTS)
def test_checkov_finds_nothing(rendered: dict[str, Path], name: str) -> None:
    done = by_checkov(rendered[name])
    assert done.returncode == 0, done.stdout + done.stderr


@with_tools
def test_checkov_would_find_something(rendered: dict[str, Path], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    text = rendered["prod"].read_text()
    wrong.write_text(text.replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false"))
    done = by_checkov(wrong)
    assert done.returncode == 1
    assert "CKV_K8S_22" in done.stdout


# policies that are not followed, and why
ACCEPTED = {
    "CKV_K8S_15": "dev's image is already on the node",
    "CKV_K8S_43": "prod is deployed by digest: docs/kubernetes.md",
}


def by_checkov(file: Path) -> subprocess.CompletedProcess[str]:
    words = ("--framework", "kubernetes", "--compact", "--quiet", "--skip-download")
    return run(tool("checkov"), "-f", file, *words, "--skip-check", ",".join(ACCEPTED))
