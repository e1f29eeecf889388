"""terraform/ agrees with the service and is fully documented, and its checks detect mistakes.

`make terraform-check` runs the tests marked `terraform`. They need `terraform`, or another program that TERRAFORM
names, and a provider, which `init` downloads or the program contains. Without these they are skipped. checkov and
moto are in a separate environment, DEPLOY_TOOLS. No AWS account is needed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.model import Shape
from botocore.validate import ParamValidator

from digits.web.settings import Settings
from digits.worker.master import CUT_OFF_SECONDS
from pipeline import clone, run, small_params
from project import ROOT

MODULE = ROOT / "terraform"
TEXT = {path.name: path.read_text() for path in MODULE.glob("*.tf")}
TOOLS = Path(os.environ.get("DEPLOY_TOOLS", ROOT / ".venv-deploy" / "bin"))


# --- without terraform ---------------------------------------------------------------------------------------


def local(name: str) -> str:
    """A value from locals.tf."""
    found = re.search(rf"^\s+{name}\s+=\s+\"?([^\"\n]+)", TEXT["locals.tf"], re.MULTILINE)
    assert found, name
    return found[1]


def public_paths() -> list[str]:
    found = re.search(r"public_paths = \[(.+?)\]", TEXT["locals.tf"], re.DOTALL)
    assert found
    return re.findall(r'"([^"]+)"', found[1])


def gunicorn_setting(name: str) -> str:
    found = re.search(rf"^{name} = (.+)$", (ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)
    assert found, name
    return found[1]


def test_ports_paths_and_times_agree_with_the_service(client: Any) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert int(local("port")) == Settings().port
    assert f"EXPOSE {local('port')}" in dockerfile
    assert f"PORT={local('port')}" in dockerfile
    assert client.get(local("ready_path")).status_code == 200
    assert client.get(local("live_path")).status_code == 200
    assert local("ready_path") in dockerfile
    assert int(local("service_keepalive_seconds")) == int(gunicorn_setting("keepalive"))
    assert int(local("idle_timeout_seconds")) < int(gunicorn_setting("keepalive"))
    assert int(local("grace_seconds")) == Settings().grace_seconds
    assert gunicorn_setting("graceful_timeout") == "settings.grace_seconds + master.CUT_OFF_SECONDS"
    assert int(local("stop_timeout")) > int(local("grace_seconds")) + CUT_OFF_SECONDS
    assert f"USER {local('user')}:" in dockerfile
    # on Fargate a volume has the permissions of its path in the image
    assert f'VOLUME ["{local("writable")}"]' in dockerfile


def test_the_load_balancer_forwards_every_route_but_metrics(client: Any) -> None:
    def forwarded(path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in public_paths())

    routes = {re.sub(r"<[^>]+>", "x", rule.rule) for rule in client.application.url_map.iter_rules()}
    assert "/metrics" in routes
    others = {route for route in routes if not forwarded(route)}
    assert others == {"/metrics"}, "public_paths in terraform/locals.tf lacks a route"
    # other spellings, some of which Flask treats as /metrics
    for path in ("/metrics/", "//metrics", "/%6detrics", "/metric%73", "/METRICS", "/./metrics"):
        assert not forwarded(path)


def test_every_variable_of_the_container_is_a_setting() -> None:
    names = re.findall(r"\{ name = \"(\w+)\", value", TEXT["service.tf"])
    settings = (ROOT / "docs" / "settings.md").read_text()
    always = {"HOST", "PORT", "DIGITS_GRACE_SECONDS", "WEB_CONCURRENCY", "DIGITS_LOG_LEVEL"}
    assert always | {"DIGITS_API_KEYS"} == set(names)
    for name in names:
        assert f"| `{name}` |" in settings


@pytest.mark.parametrize("kind", ["variable", "output"])
@pytest.mark.parametrize("folder", [MODULE, MODULE / "bootstrap"])
def test_every_variable_and_output_is_described(folder: Path, kind: str) -> None:
    text = "".join(path.read_text() for path in folder.glob("*.tf"))
    blocks = re.findall(rf'^{kind} "(\w+)" \{{\n(.*?)^\}}', text, re.MULTILINE | re.DOTALL)
    assert blocks
    for name, block in blocks:
        assert len(re.findall(r'^  description = "(.+)"$', block, re.MULTILINE)) == 1, name


def test_every_variable_in_the_document_exists() -> None:
    document = (ROOT / "docs" / "aws.md").read_text()
    variables = set(re.findall(r'^variable "(\w+)"', TEXT["variables.tf"], re.MULTILINE))
    table = set(re.findall(r"^\| `(\w+)` \|", document, re.MULTILINE))
    assert table
    assert table | set(re.findall(r"`(\w+) = ", document)) <= variables


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_every_variable_of_a_deployment_is_in_its_test(environment: str) -> None:
    given = re.findall(r"^(\w+) +=", (MODULE / f"{environment}.tfvars").read_text(), re.MULTILINE)
    tests = (MODULE / "tests" / "deployment.tftest.hcl").read_text()
    assert given
    assert re.findall(rf"^ +(\w+) += var\.{environment}\.\1$", tests, re.MULTILINE) == given


@pytest.fixture
def cost() -> ModuleType:
    """terraform/cost.py as a module; it is a script outside of packages."""
    spec = importlib.util.spec_from_file_location("cost", MODULE / "cost.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cost"] = module
    spec.loader.exec_module(module)
    return module


def test_the_cost_table_is_what_the_script_prints() -> None:
    printed = run(MODULE, sys.executable, "cost.py").stdout
    assert printed.strip() in (ROOT / "docs" / "aws.md").read_text()


def test_the_cost_of_a_million_pictures_is_what_the_script_prints(cost: ModuleType) -> None:
    printed = run(MODULE, sys.executable, "cost.py", "bulk").stdout
    assert printed.strip() in (ROOT / "docs" / "bulk.md").read_text()
    # ten workers for an hour at 100 pictures per second, without the start
    pictures = 10 * 100 * (3600 - cost.BULK_START_SECONDS)
    found = cost.bulk(pictures, 10, 100, objects=2000)
    task = cost.VCPU_HOUR + 2 * cost.GB_HOUR
    assert found == pytest.approx(
        {
            "minutes": 60,
            "tasks": task * (10 * cost.SPOT + 2),
            "addresses": 12 * cost.ADDRESS_HOUR,
            "reading": 2 * cost.GET_1000,
        }
    )


def test_no_more_is_planned_for_bulk_than_was_measured(cost: ModuleType) -> None:
    definitions = TEXT["bulk.tf"]
    assert f"cpu                = {cost.BULK_CPU * 1024}\n" in definitions
    assert f"memory             = {cost.BULK_MEMORY * 1024}\n" in definitions
    results = ROOT / "benchmarks" / "bulk.json"
    if not results.exists():
        pytest.skip("needs benchmarks/bulk.json: `make bench-bulk` writes it")
    measured = json.loads(results.read_text())
    for kind, planned_rate in cost.BULK_PER_VCPU.items():
        assert measured["turns"][kind.partition("x")[0]]["dask"] / measured["cores"] * 0.7 >= planned_rate


def test_costs_add_up_by_hand(cost: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "VCPU_HOUR": 0.04,
        "GB_HOUR": 0.005,
        "SPOT": 0.5,
        "BALANCER_HOUR": 0.02,
        "LCU_HOUR": 0.01,
        "ADDRESS_HOUR": 0.005,
        "LOG_GB": 0.5,
        "OUT_GB": 0.1,
        "OUT_FREE_GB": 100,
        "HOURS": 1000,
        "PER_VCPU": 100,
        "REQUEST": 2000,
        "ANSWER": 500,
        "LOG_LINE": 400,
    }.items():
        monkeypatch.setattr(cost, name, value)
    monkeypatch.setattr(cost, "__file__", str(tmp_path / "cost.py"))
    (tmp_path / "half.tfvars").write_text(
        'environment = "half"\ncpu = 1024\nmemory = 2048\nmin_tasks = 1\nmax_tasks = 10\n'
        "on_demand_base = 2\nspot_weight = 50\n"
    )
    # one task at 0.04 + 2 * 0.005 per hour, a load balancer, and three addresses
    assert list(cost.month("half", 0).values()) == pytest.approx([1, 50, 20, 15, 0, 0])
    # six tasks: two on demand, and half of the other four on Spot at half the price; together 4 + 2 * 0.5 prices.
    # 600 * 2,500 bytes a second are 5.4 GB an hour; 600 * 500 * 3.6 million seconds are 1,080 GB out
    assert cost.month("half", 600) == pytest.approx(
        {
            "tasks": 6,
            "tasks, $": 250,
            "load balancer, $": 20 + 54,
            "addresses, $": 40,
            "data out, $": 98,
            "request log, $": 432,
        }
    )
    assert cost.month("half", 1001) is None


def test_as_many_predictions_are_planned_as_the_scaling_aims_at(cost: ModuleType) -> None:
    planned = re.search(
        r'variable "requests_per_vcpu".*?\n  default += (\d+)', TEXT["variables.tf"], re.DOTALL
    )
    assert planned
    assert int(planned[1]) == cost.PER_VCPU


def test_no_more_is_planned_than_was_measured(cost: ModuleType) -> None:
    measured = ROOT / "benchmarks" / "results.json"
    if not measured.exists():
        pytest.skip("needs benchmarks/results.json: `make bench` writes it")
    found = json.loads(measured.read_text())
    rates = sorted(turn["rate"] for turn in found["results"]["this service"]["json1 c16"])
    assert rates[len(rates) // 2] / found["cores"] > cost.PER_VCPU


STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*${DOCKER_DEFAULT_PLATFORM:+ for $DOCKER_DEFAULT_PLATFORM}" >>"$CALLS"
case "$(basename "$0") $*" in
"git rev-parse"*) echo 0123456789ab ;;
"git status"*) printf '%s' "$DIRTY" ;;
"terraform output -raw repository_url") [ -e "$MADE" ] && echo 1.dkr.ecr.us-east-1.amazonaws.com/digits-dev ;;
"terraform output -raw platform") echo linux/amd64 ;;
"terraform output"*) echo http://balancer ;;
"terraform apply"*) touch "$MADE" ;;
"aws ecr describe-images"*) [ -n "$PUSHED" ] ;;
esac
"""


@pytest.fixture
def deploy(tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """Runs terraform/deploy with stand-ins for the programs that it calls. Returns its exit code and the calls."""
    programs, folder = tmp_path / "bin", tmp_path / "terraform"
    programs.mkdir()
    folder.mkdir()
    for name in ("terraform", "aws", "docker", "git", "make"):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    for name in ("deploy", "dev.tfvars"):
        shutil.copy(MODULE / name, folder / name)
    (folder / "backend.hcl").touch()

    def deploy(
        *words: str, made: bool = True, pushed: bool = False, dirty: str = ""
    ) -> tuple[int, list[str]]:
        calls = tmp_path / "calls"
        calls.write_text("")
        if made:
            (tmp_path / "made").touch()
        environ = {
            "CALLS": str(calls),
            "MADE": str(tmp_path / "made"),
            "PUSHED": "1" * pushed,
            "DIRTY": dirty,
        }
        environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run([folder / "deploy", *words], env=environ, capture_output=True, check=False)
        return done.returncode, calls.read_text().splitlines()

    return deploy


def changes(calls: list[str]) -> list[str]:
    """The calls that create or change something, shortened."""
    shown = [re.sub(r" (--username|-var-file=).*", "", call) for call in calls]
    values = [re.findall(r"image_tag=(\S*)", call) for call in calls]
    found = [" ".join([call, *value]) for call, value in zip(shown, values, strict=True)]
    return [call for call in found if call.startswith(("terraform apply", "make", "docker"))]


def test_a_first_deployment_makes_the_repository_before_the_image(deploy: Callable[..., Any]) -> None:
    code, calls = deploy("dev", made=False)
    assert code == 0
    image = "1.dkr.ecr.us-east-1.amazonaws.com/digits-dev:0123456789ab"
    assert changes(calls) == [
        "terraform apply ",
        "make -C .. image for linux/amd64",
        f"docker tag digits {image}",
        "docker login",
        f"docker push {image}",
        "terraform apply 0123456789ab",
    ]
    assert any("-backend-config=key=digits-dev.tfstate" in call for call in calls)


def test_a_deployment_builds_an_image_that_is_not_pushed_yet(deploy: Callable[..., Any]) -> None:
    steps = [" ".join(call.split()[:2]) for call in changes(deploy("dev")[1])]
    assert steps == ["make -C", "docker tag", "docker login", "docker push", "terraform apply"]
    assert changes(deploy("dev", pushed=True)[1]) == ["terraform apply 0123456789ab"]


def test_a_rollback_uses_an_existing_image(deploy: Callable[..., Any]) -> None:
    code, calls = deploy("dev", "earlier", pushed=True, dirty=" M app.py")
    assert (code, changes(calls)) == (0, ["terraform apply earlier"])
    code, calls = deploy("dev", "never-pushed")
    assert (code, changes(calls)) == (1, [])


def test_a_deployment_refuses_an_unknown_commit(deploy: Callable[..., Any]) -> None:
    code, calls = deploy("dev", dirty=" M app.py")
    assert (code, changes(calls)) == (2, [])
    assert deploy("staging")[0] == 2
    assert deploy()[0] == 2


# --- terraform -----------------------------------------------------------------------------------------------


def terraform(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run terraform, or the program that TERRAFORM names, in a folder. The exit code is 127 if it does not
    exist."""
    command = [*shlex.split(os.environ.get("TERRAFORM", "terraform")), f"-chdir={folder}", *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def no_registry(error: str) -> bool:
    """Whether `init` failed because the registry could not be reached."""
    error = " ".join(error.split())
    return bool(re.search(r"could not connect to|no such host|failed to request discovery", error))


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the module with its provider, which is downloaded only once."""
    folder = tmp_path_factory.mktemp("initialised") / "terraform"
    shutil.copytree(MODULE, folder, ignore=shutil.ignore_patterns("*.tfstate*", ".terraform", "backend.hcl"))
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("TF_DATA_DIR", str(folder.parent / "data"))
        done = terraform(folder, "version")
        # not found, or a folder with this name
        if done.returncode in (126, 127):
            pytest.skip(
                "terraform/ is not checked: there is no terraform; install it, or name it by TERRAFORM"
            )
        assert done.returncode == 0, done.stdout + done.stderr
        for place in (folder, folder / "bootstrap"):
            error = terraform(place, "validate", "-no-color").stderr
            # a program that contains its provider needs no init
            if re.search(
                r"Missing required provider|missing or corrupted provider|Inconsistent dependency", error
            ):
                done = terraform(place, "init", "-backend=false", "-input=false", "-no-color")
                if no_registry(done.stderr):
                    pytest.skip("terraform/ is not checked: no registry to fetch the AWS provider from")
                assert done.returncode == 0, done.stdout + done.stderr
        yield folder


@pytest.fixture
def module(initialised: Path, tmp_path: Path) -> Path:
    """A copy of the module that a test may change."""
    return shutil.copytree(initialised, tmp_path / "terraform")


def planned(folder: Path, test: str = "deployment") -> dict[str, list[dict[str, Any]]]:
    """The resources in the plans of dev and prod, as `terraform test` creates them: {"type", "change", ...}.

    test: another file in tests/, whose runs are planned instead.
    """
    done = terraform(folder, "test", "-json", "-verbose", f"-filter=tests/{test}.tftest.hcl")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, [line["diagnostic"] for line in lines if "diagnostic" in line] or done.stderr
    plans = {line["@testrun"]: line["test_plan"]["resource_changes"] for line in lines if "test_plan" in line}
    assert test != "deployment" or plans.keys() == {"dev", "prod"}
    return plans


ENUMS = {
    ("ecs", "CPUArchitecture"): "aws_ecs_task_definition.runtime_platform.cpu_architecture",
    ("ecs", "OSFamily"): "aws_ecs_task_definition.runtime_platform.operating_system_family",
    ("ecs", "NetworkMode"): "aws_ecs_task_definition.network_mode",
    ("ecs", "Compatibility"): "aws_ecs_task_definition.requires_compatibilities",
    ("ecs", "PropagateTags"): "aws_ecs_service.propagate_tags",
    ("ecs", "AvailabilityZoneRebalancing"): "aws_ecs_service.availability_zone_rebalancing",
    ("ecs", "ClusterSettingName"): "aws_ecs_cluster.setting.name",
    ("ecr", "ImageTagMutability"): "aws_ecr_repository.image_tag_mutability",
    ("ecr", "EncryptionType"): "aws_ecr_repository.encryption_configuration.encryption_type",
    ("elbv2", "ProtocolEnum"): "aws_lb_listener.protocol",
    ("elbv2", "ActionTypeEnum"): "aws_lb_listener.default_action.type",
    ("elbv2", "TargetTypeEnum"): "aws_lb_target_group.target_type",
    ("elbv2", "LoadBalancerTypeEnum"): "aws_lb.load_balancer_type",
    ("cloudwatch", "ComparisonOperator"): "aws_cloudwatch_metric_alarm.comparison_operator",
    ("cloudwatch", "Statistic"): "aws_cloudwatch_metric_alarm.statistic",
    ("application-autoscaling", "PolicyType"): "aws_appautoscaling_policy.policy_type",
    ("application-autoscaling", "ScalableDimension"): "aws_appautoscaling_target.scalable_dimension",
    ("application-autoscaling", "ServiceNamespace"): "aws_appautoscaling_target.service_namespace",
    (
        "application-autoscaling",
        "MetricType",
    ): "aws_appautoscaling_policy.target_tracking_scaling_policy_configuration"
    ".predefined_metric_specification.predefined_metric_type",
    ("s3", "BucketVersioningStatus"): "aws_s3_bucket_versioning.versioning_configuration.status",
    ("s3", "ServerSideEncryption"): "aws_s3_bucket_server_side_encryption_configuration.rule"
    ".apply_server_side_encryption_by_default.sse_algorithm",
    ("s3", "ExpirationStatus"): "aws_s3_bucket_lifecycle_configuration.rule.status",
    ("ec2", "VpcEndpointType"): "aws_vpc_endpoint.vpc_endpoint_type",
}


def values(resources: list[dict[str, Any]], path: str) -> list[Any]:
    """All values that are set at `type.attribute.block.attribute` of a plan."""
    kind, *steps = path.split(".")
    found = [r["change"]["after"] for r in resources if r["type"] == kind and r["change"]["after"]]
    for step in steps:
        found = [value[step] for value in found if value.get(step) is not None]
        found = [inner for value in found for inner in (value if isinstance(value, list) else [value])]
    return found


def unknown_words(value: Any, shape: Shape) -> Iterator[str]:
    """The strings in `value` that AWS does not accept there."""
    if shape.type_name == "structure":
        for name, inner in value.items():
            yield from unknown_words(inner, shape.members[name])
    elif shape.type_name == "list":
        for inner in value:
            yield from unknown_words(inner, shape.member)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{value} is not a {shape.name}"


def refused_by_aws(resources: list[dict[str, Any]]) -> list[str]:
    """The errors in a plan according to botocore's models of AWS, such as unknown values or invalid containers.
    Raises AssertionError if the plan lacks something to check."""
    session = botocore.session.get_session()
    refused = []
    for (service, shape), path in ENUMS.items():
        found = values(resources, path)
        assert found, path
        known = session.get_service_model(service).shape_for(shape).enum
        refused += [f"{path}: {value} is not one of {known}" for value in found if value not in known]
    shape = session.get_service_model("ecs").shape_for("RegisterTaskDefinitionRequest")
    for definition in values(resources, "aws_ecs_task_definition.container_definitions"):
        containers = json.loads(definition)
        report = ParamValidator().validate({"family": "x", "containerDefinitions": containers}, shape)
        if report.has_errors():
            refused.append(report.generate_report())
        else:
            refused += unknown_words(containers, shape.members["containerDefinitions"])
    return refused


def checkov(folder: Path) -> subprocess.CompletedProcess[str]:
    assert (TOOLS / "checkov").exists(), "run `make terraform-check`, which installs checkov"
    words = ["-d", str(folder), "--framework", "terraform", "--skip-download", "--compact", "--quiet"]
    return subprocess.run([TOOLS / "checkov", *words], capture_output=True, text=True, check=False)


@pytest.mark.terraform
def test_the_code_is_formatted_and_valid(module: Path) -> None:
    done = terraform(module, "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout
    done = terraform(module, "validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.terraform
def test_bootstrap_is_valid(module: Path) -> None:
    done = terraform(module / "bootstrap", "validate", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.terraform
def test_terraform_test_passes(module: Path) -> None:
    done = terraform(module, "test", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Success! \d+ passed, 0 failed\.", done.stdout)


@pytest.mark.terraform
def test_checkov_finds_nothing_and_every_skip_has_its_reason() -> None:
    done = checkov(MODULE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Failed checks: 0" in done.stdout
    skips = re.findall(r"#checkov:skip=(.*)", "".join(p.read_text() for p in MODULE.rglob("*.tf")))
    assert skips
    for skip in skips:
        assert re.fullmatch(r"CKV2?_AWS_\d+:\S.{7,}", skip)


@pytest.mark.terraform
def test_the_plans_hold_what_aws_accepts(module: Path) -> None:
    for resources in planned(module).values():
        assert refused_by_aws(resources) == []
        (definition,) = values(resources, "aws_ecs_task_definition.container_definitions")
        (container,) = json.loads(definition)
        assert container["image"].endswith(".amazonaws.com/digits-prod:abc123")
        assert container["readonlyRootFilesystem"]
        assert container["user"] != "0"
        assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
        # refused by Fargate, but not in botocore's model
        assert not {"tmpfs", "sharedMemorySize", "maxSwap", "devices"} & set(container["linuxParameters"])
        assert container["stopTimeout"] <= 120


@pytest.mark.terraform
def test_what_bulk_adds_is_what_aws_accepts_and_the_image_runs(module: Path) -> None:
    resources = planned(module, "bulk")["bulk"]
    assert refused_by_aws(resources) == []
    found = [json.loads(each) for each in values(resources, "aws_ecs_task_definition.container_definitions")]
    bulk = [container for (container,) in found if container["name"] == "bulk"]
    assert len(bulk) == 3
    for container in bulk:
        assert container["image"].endswith("/digits-prod:bulk-abc123")
        assert container["readonlyRootFilesystem"]
        assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    # commands are arguments of the image's entry point
    assert {container["command"][0] for container in bulk} == {"-m", "bulk.py"}
    assert 'ENTRYPOINT ["python"]' in (ROOT / "Dockerfile").read_text()


def by_terraform(*words: str) -> Callable[[Path], str]:
    def check(folder: Path) -> str:
        done = terraform(folder, *words, "-no-color")
        return "" if done.returncode == 0 else done.stdout + done.stderr

    return check


def by_checkov(folder: Path) -> str:
    done = checkov(folder)
    return "" if done.returncode == 0 else done.stdout


def by_botocore(folder: Path) -> str:
    return "\n".join(refused for plan in planned(folder).values() for refused in refused_by_aws(plan))


VALIDATE = by_terraform("validate")


def by_test(name: str) -> Callable[[Path], str]:
    return by_terraform("test", f"-filter=tests/{name}.tftest.hcl")


# a mistake: file, text to replace, replacement, the check that must detect it, and a word in its message
MISTAKES: dict[str, tuple[str, str, str, Callable[[Path], str], str]] = {
    "indentation": (
        "outputs.tf",
        "  description",
        "    description",
        by_terraform("fmt", "-check"),
        "outputs.tf",
    ),
    "typo in an attribute": (
        "balancer.tf",
        "drop_invalid_header_fields",
        "drop_invalid_headers_fields",
        VALIDATE,
        "drop_invalid_headers_fields",
    ),
    "wrong type": ("balancer.tf", "local.idle_timeout_seconds", '"long"', VALIDATE, "a number is required"),
    "missing argument": (
        "service.tf",
        "  cluster_name       = aws_ecs_cluster.main.name\n",
        "",
        VALIDATE,
        '"cluster_name" is required',
    ),
    "dangling reference": (
        "service.tf",
        "aws_ecs_cluster.main.id",
        "aws_ecs_cluster.gone.id",
        VALIDATE,
        "undeclared resource",
    ),
    "Fargate pair": ("prod.tfvars", "2048", "1024", by_test("deployment"), "memory does not fit cpu"),
    "open security group": (
        "network.tf",
        '  description                  = "From the load balancer"\n'
        "  referenced_security_group_id = aws_security_group.balancer.id\n",
        '  description = "From anywhere"\n  cidr_ipv4 = "0.0.0.0/0"\n',
        by_test("network"),
        "from no address range",
    ),
    "port mismatch": (
        "balancer.tf",
        "port                          = local.port",
        "port = 5001",
        by_test("network"),
        "one port everywhere",
    ),
    "public metrics": ("locals.tf", '"/model",', '"/m*",', by_test("network"), "reaches /metrics"),
    "wildcard IAM": (
        "iam.tf",
        '"logs:CreateLogStream", "logs:PutLogEvents"',
        '"logs:*"',
        by_test("github"),
        "every action is named",
    ),
    "public bucket": (
        "data.tf",
        "block_public_policy     = true",
        "block_public_policy     = false",
        by_checkov,
        "CKV_AWS_54",
    ),
    "a word that AWS does not know": (
        "service.tf",
        '"SERVICE"',
        '"SERVICES"',
        by_botocore,
        "SERVICES is not one of",
    ),
    "a container that ECS does not take": (
        "service.tf",
        "stopTimeout  ",
        "stopTimeoutSeconds",
        by_botocore,
        "Unknown parameter",
    ),
    "a log driver that ECS does not know": (
        "service.tf",
        '"awslogs"',
        '"awslog"',
        by_botocore,
        "is not a LogDriver",
    ),
}


@pytest.mark.terraform
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught(module: Path, mistake: str) -> None:
    file, old, new, check, message = MISTAKES[mistake]
    text = (module / file).read_text()
    assert old in text
    (module / file).write_text(text.replace(old, new, 1))
    assert message in " ".join(check(module).split())


# --- the DVC remote ------------------------------------------------------------------------------------------


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of moto's S3. Environment variables make other programs use it as well."""
    assert (TOOLS / "moto_server").exists(), "run `make terraform-check`, which installs moto"
    process = subprocess.Popen(
        [TOOLS / "moto_server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"Running on (http://\S+)", line):
                break
        else:
            raise AssertionError("moto's server did not start")
        for name, value in {
            "AWS_ENDPOINT_URL_S3": found[1],
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield botocore.session.Session().create_client("s3")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.terraform
def test_dvc_push_and_pull_through_s3(s3: Any, tmp_path: Path) -> None:
    """The commands in docs/aws.md, with the bucket that `terraform output -raw dvc_remote` would print."""
    section = (ROOT / "docs" / "aws.md").read_text().partition("## Data with DVC")[2].partition("\n## ")[0]
    commands = re.findall(r"^dvc .*$", section, re.MULTILINE)
    remote, push, pull = (
        shlex.split(
            c.replace('"$(terraform -chdir=terraform output -raw dvc_remote)"', "s3://digits-dev-dvc-1/dvc")
        )
        for c in commands
    )
    s3.create_bucket(Bucket="digits-dev-dvc-1")

    first = clone(ROOT, tmp_path / "first")
    (first / "params.yaml").write_text(yaml.safe_dump(small_params()))
    run(first, "dvc", "repro", "images")
    run(first, *remote)
    run(first, "git", "add", "-A")
    run(first, "git", "commit", "-qm", "drawn digits, a remote")
    # the other stages have not run in this clone
    made = "--with-deps", "images"
    run(first, *push, *made)
    stored = [o["Key"] for o in s3.list_objects_v2(Bucket="digits-dev-dvc-1")["Contents"]]
    assert stored
    assert all(key.startswith("dvc/files/md5/") for key in stored)

    second = clone(first, tmp_path / "second")
    assert not (second / "data" / "digits.npz").exists()
    run(second, *pull, *made)
    for name in ("digits.npz", "images.npz"):
        assert (second / "data" / name).read_bytes() == (first / "data" / name).read_bytes()
