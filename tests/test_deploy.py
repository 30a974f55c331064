"""The recipes in deploy/: valid, confined, of one set of versions, and asking for commands that exist."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
from manifests import (
    DEPLOY,
    KUBERAY_SCHEMAS,
    KUBERNETES,
    ROOT,
    Manifest,
    cluster_specs,
    containers,
    groups,
    kuberay_faults,
    manifest,
    manifests,
    pods,
    read_yaml,
)

from flows.cli import app
from flows.metrics import COUNTERS, GAUGES, HISTOGRAMS

KUBERNETES_VERSION = "1.37"
SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|AUTH_STRING|ACCESS_KEY")
BIN = Path(sys.executable).parent
LOCKED = runpy.run_path(str(DEPLOY / "installed_as_locked.py"))


def lock() -> dict[str, str]:
    return LOCKED["read_lock"]((ROOT / "requirements.lock").read_text())


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def named(each: Manifest) -> str:
    return f"{each.file}-{each.kind}-{each.document['metadata'].get('name', 'generated')}"


# Schemas


@pytest.mark.parametrize("each", [each for each in manifests() if not each.is_kuberay], ids=named)
def test_kubernetes_accepts_the_manifest(each: Manifest) -> None:
    kubernetes_validate.validate(each.document, KUBERNETES_VERSION, strict=True)


@pytest.fixture
def kuberay() -> None:
    if not KUBERAY_SCHEMAS.is_dir():
        pytest.skip("KubeRay's resource definitions (../shared/schemas/kuberay) are absent")


@pytest.mark.usefixtures("kuberay")
@pytest.mark.parametrize("each", [each for each in manifests() if each.is_kuberay], ids=named)
def test_kuberay_accepts_the_manifest_and_would_notice_a_slip(each: Manifest) -> None:
    assert kuberay_faults(each.document) == []
    for slip in slips(each.document):
        assert kuberay_faults(slip), "a misspelt or mistyped field goes unnoticed"


def slips(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The document with one mistake each, deep inside."""
    misspelt, mistyped, unknown = deepcopy(document), deepcopy(document), deepcopy(document)
    misspelt_spec, mistyped_spec, unknown_spec = (_cluster_of(each) for each in (misspelt, mistyped, unknown))
    misspelt_spec["workerGroupSpecs"][0]["minReplica"] = 1
    mistyped_spec["workerGroupSpecs"][0]["maxReplicas"] = "8"
    unknown_spec["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    return [misspelt, mistyped, unknown]


def _cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    spec = spec.get("jobTemplate", spec)
    return spec.get("rayClusterSpec", spec)


def test_the_kustomization_names_every_file_but_the_jobs() -> None:
    (kustomization,) = read_yaml(KUBERNETES / "kustomization.yaml")
    files = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert set(kustomization["resources"]) == files - {"kustomization.yaml", "ray-job.yaml", "ray-cron-job.yaml"}


def test_one_cluster_is_described_three_times_and_the_same_each_time() -> None:
    specs = cluster_specs()
    assert specs["RayJob"] == specs["RayCronJob"]
    standing = deepcopy(specs["RayCluster"])
    pod = standing["headGroupSpec"]["template"]["spec"]
    # What only the standing cluster has: Prefect's worker beside the head.
    for key in ("initContainers", "shareProcessNamespace", "enableServiceLinks"):
        del pod[key]
    assert standing == specs["RayJob"]


# Confinement


@pytest.mark.parametrize(("where", "pod"), list(pods()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_pod_has_no_rights_that_it_does_not_need(where: str, pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True, where
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    assert all("hostPath" not in volume for volume in pod.get("volumes", []))
    for container in containers(pod):
        confined = container["securityContext"]
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_only_the_autoscaler_may_talk_to_kubernetes() -> None:
    with_token = {where for where, pod in pods() if pod.get("automountServiceAccountToken", True)}
    assert with_token == {"RayCluster head", "RayJob head", "RayCronJob head"}


def test_secrets_are_named_and_never_given() -> None:
    assert not [each for each in manifests() if each.kind == "Secret"]
    for _, pod in pods():
        for container in containers(pod):
            for variable in container.get("env", []):
                if SECRET_NAME.search(variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"]
    compose = read_compose()
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET_NAME.search(name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{name} has a value or a default"


def test_ray_asks_for_its_token_everywhere() -> None:
    for spec in cluster_specs().values():
        assert spec["authOptions"] == {"mode": "token", "secretName": "overtile-ray-token"}
    (worker,) = cluster_specs()["RayCluster"]["headGroupSpec"]["template"]["spec"]["initContainers"]
    variables = {each["name"]: each for each in worker["env"]}
    assert variables["RAY_AUTH_MODE"]["value"] == "token"
    reference = variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "overtile-ray-token", "key": "auth_token"}


def test_nothing_is_allowed_that_no_policy_names() -> None:
    deny = manifest("NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for each in manifests():
        if each.kind == "NetworkPolicy":
            spec = each.document["spec"]
            for rule in (*spec.get("ingress", []), *spec.get("egress", [])):
                assert rule.get("from") or rule.get("to"), "a rule without peers means everybody"
                assert rule["ports"], "a rule without ports means every port"


def test_rays_fixed_ports_are_those_of_the_policy() -> None:
    allowed = allowed_ports("ray-nodes") | allowed_ports("metrics")
    for spec in cluster_specs().values():
        for group in groups(spec):
            parameters = group["rayStartParams"]
            ports = {int(value) for name, value in parameters.items() if name.endswith("-port")}
            workers = set(range(int(parameters["min-worker-port"]), int(parameters["max-worker-port"]) + 1))
            assert ports | workers <= allowed
            assert len(ports) == 8


def allowed_ports(policy: str) -> set[int]:
    rules = manifest("NetworkPolicy", policy)["spec"]["ingress"]
    ports = [port for rule in rules for port in rule["ports"]]
    return {number for port in ports for number in range(port["port"], port.get("endPort", port["port"]) + 1)}


# Versions


def test_images_carry_the_locked_versions() -> None:
    locked = lock()
    tag = f"{project()['project']['version']}-ray{locked['ray']}"
    for spec in cluster_specs().values():
        assert spec["rayVersion"] == locked["ray"]
    images = {container["image"] for _, pod in pods() for container in containers(pod)}
    images |= {service["image"] for service in read_compose()["services"].values()}
    # Ray's and Prefect's own images would bring versions of their own.
    assert images == {f"overtile:{tag}-cpu", f"overtile:{tag}-cuda", "postgres:17.6-bookworm"}
    for path in (*DEPLOY.rglob("*"), *(ROOT / "docs").glob("*.md")):
        if path.is_file():
            for found in re.findall(r"overtile:(\d[\w.-]*)", path.read_text(encoding="utf-8")):
                assert found in {f"{tag}-cpu", f"{tag}-cuda"}, path


def test_prefects_deployments_are_for_the_locked_prefect_and_its_pool() -> None:
    (project_file,) = read_yaml(DEPLOY / "prefect.yaml")
    assert project_file["prefect-version"] == lock()["prefect"]
    pools = {each["work_pool"]["name"] for each in project_file["deployments"]}
    workers = [read_compose()["services"]["worker"]["command"]]
    workers += [container["command"] for _, pod in pods() for container in pod.get("initContainers", [])]
    assert len(workers) == 2
    assert pools == {command[command.index("--pool") + 1] for command in workers}


def test_the_image_has_the_python_that_the_lock_was_made_for() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    (image,) = set(re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE))
    (made_for,) = set(re.findall(r"--python-version (\S+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert re.fullmatch(rf"python:{re.escape(made_for)}\.\d+-slim-bookworm", image)
    assert project()["tool"]["pyright"]["pythonVersion"] == made_for


def test_this_environment_is_what_the_lock_says() -> None:
    ended = subprocess.run(
        [sys.executable, str(DEPLOY / "installed_as_locked.py"), str(ROOT / "requirements.lock")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_stray_package_or_version_is_refused() -> None:
    locked = {"ray": "2.60.0", "torch": "2.13.0"}
    differences = LOCKED["differences"]
    assert differences({"ray": "2.60.0", "torch": "2.13.0+cpu", "nvidia-cudnn": "9", "overtile": "0"}, locked) == []
    (other,) = differences({"ray": "2.59.0"}, locked)
    assert "2.59.0" in other
    (stray,) = differences({"surprise": "1.0"}, locked)
    assert "not in the lock" in stray


# Container


def stages() -> list[list[str]]:
    """The Containerfile's instructions, stage by stage; continued lines joined, comments left out."""
    lines = [line for line in (DEPLOY / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found: list[list[str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("FROM "):
            found.append([])
        if found:
            found[-1].append(line)
    return found


def test_the_image_runs_as_nobody_in_particular() -> None:
    *_, final = stages()
    assert [line for line in final if line.startswith("USER ")] == ["USER 10001:10001"]
    assert any(line.startswith("HEALTHCHECK ") for line in final)
    for _, pod in pods():
        if any(container["image"].startswith("overtile:") for container in containers(pod)):
            assert pod["securityContext"]["runAsUser"] == 10001


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    first, _ = stages()
    copied = [name for line in first if line.startswith("COPY ") for name in line.split()[1:-1]]
    kept = (DEPLOY / "Containerfile.dockerignore").read_text().split()
    assert kept[0] == "*"
    assert {f"!{name}" for name in copied} == {line for line in kept if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)


# Recipes that are scripts, units and pages


def run_tool(*command: object) -> None:
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_containerfile_passes_hadolint() -> None:
    run_tool(BIN / "hadolint", "--no-color", DEPLOY / "Containerfile")


def test_shell_scripts_pass_shellcheck() -> None:
    stand_ins = sorted((ROOT / "tests" / "slurm").iterdir())
    run_tool(BIN / "shellcheck", "--severity=style", DEPLOY / "slurm" / "overtile.sbatch", *stand_ins)


def test_yaml_passes_yamllint() -> None:
    rules = (
        "{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: {max-spaces-inside: 0}}}"
    )
    comments = rules.replace("rules: {", "rules: {comments: {min-spaces-from-content: 1}, ")
    run_tool(BIN / "yamllint", "--strict", "-d", comments, *sorted(DEPLOY.rglob("*.yaml")))


def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    for unit in (DEPLOY / "systemd").glob("overtile-archive.*"):
        text = unit.read_text().replace("/opt/overtile/bin/overtile", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    run_tool(analyze, "verify", "--man=no", *sorted(tmp_path.iterdir()))
    service = tmp_path / "overtile-archive.service"
    # Tenths of systemd's measure, on which 0 is confined and 10 is not at all.
    run_tool(analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", service)


def read_compose() -> dict[str, Any]:
    (compose,) = read_yaml(DEPLOY / "compose" / "compose.yaml")
    return compose


def test_compose_confines_its_services_and_publishes_on_localhost_only() -> None:
    for name, service in read_compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["healthcheck"]["test"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_variable_that_compose_asks_for_is_in_the_example() -> None:
    asked = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose" / "compose.yaml").read_text()))
    lines = (DEPLOY / "compose" / "env.example").read_text().splitlines()
    given = {line.partition("=")[0]: line.partition("=")[2] for line in lines if not line.startswith("#")}
    assert asked == given.keys()
    assert not any(given[name] for name in given if SECRET_NAME.search(name) or "AUTH" in name)


def recipe_commands() -> dict[str, list[str]]:
    """Every call of overtile in a recipe, as words."""
    unit = (DEPLOY / "systemd" / "overtile-archive.service").read_text()
    (start,) = re.findall(r"^ExecStart=\S+/(overtile .*)$", unit, re.MULTILINE)
    job, nightly = manifest("RayJob")["spec"], manifest("RayCronJob")["spec"]["jobTemplate"]
    commands = {"systemd": start, "RayJob": job["entrypoint"], "RayCronJob": nightly["entrypoint"]}
    return {where: shlex.split(command) for where, command in commands.items()}


@pytest.mark.parametrize("where", ["systemd", "RayJob", "RayCronJob"])
def test_recipes_ask_for_commands_and_options_that_exist(where: str) -> None:
    program, command, *words = recipe_commands()[where]
    assert program == "overtile"
    known = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    options = {name for parameter in known.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_the_dashboard_asks_for_metrics_that_are_exported() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "overtile.json").read_text())
    exported = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}
    exported |= {f"ray_{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count")}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    asked = {name for query in queries for name in re.findall(r"\bray_\w+", query)}
    assert asked <= exported
    assert exported <= asked, "every figure is shown somewhere"
