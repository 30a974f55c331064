"""The recipes in deploy/ beside the manifests: confined, asking for commands that exist, faultless to their linters."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import typer.main
from manifests import (
    DEPLOY,
    ROOT,
    SECRET_NAME,
    cluster_specs,
    lock,
    manifest,
    pods,
    read_compose,
    read_yaml,
    run_tool,
)
from prefect.flows import load_flow_from_entrypoint

from flows.cli import app

BIN = Path(sys.executable).parent
PREFECT_FILES = ("prefect.yaml", "compose/prefect.yaml")


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


def test_containerfile_passes_hadolint() -> None:
    run_tool(BIN / "hadolint", "--no-color", DEPLOY / "Containerfile")


def test_shell_scripts_pass_shellcheck() -> None:
    stand_ins = sorted((ROOT / "tests" / "deploy" / "slurm").iterdir())
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
    for unit in (DEPLOY / "systemd").glob("overtile-archive*"):
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


def test_a_night_that_dies_without_a_word_is_said_by_another_unit() -> None:
    (unit,) = unit_settings("overtile-archive.service")["OnFailure"]
    (asked,) = unit_settings(unit)["ExecStart"]
    program, command, *words = shlex.split(asked)
    assert (Path(program).name, command, words[0]) == ("overtile", "doctor", "--archive")
    assert unit_settings("overtile-archive.service")["SuccessExitStatus"] == ["4 143"], "a backlog is no failure"


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
