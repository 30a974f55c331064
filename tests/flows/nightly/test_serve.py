"""Nights by Prefect's clock: a real server, a real process that serves, flow runs made and cancelled by its API."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from cli import OVERTILE, Cli, clean_environment, free_port, mask_files
from conftest import wait_for_server
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect_api import Api
from tiny import save_tiny, write_noise
from waiting import wait_for_tiles

from flows.archive import segment_archive
from flows.config.archive import ArchiveConfig
from flows.config.base import checked
from flows.config.deployed import SERVED_ARCHIVE, TRUSTED_MODEL, allowed, serve_only
from flows.config.run import RerunConfig, SegmentConfig
from flows.deployments import deployments_of
from flows.errors import ConfigError, FlowError
from flows.lifecycle.prefect_server import EmbeddedServer
from flows.reporting.prefect_names import artifact_key
from flows.rerun import rerun
from flows.segment import segment
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.slide_record import SlideState
from tiling.runs.run import Run

ROOT = Path(__file__).parents[3]
QUICK = ("--core", 64, "--foreground", "none", "--workers", 2, "--settle", "0s")


def test_rerunning_a_tile_is_a_form_with_a_run_and_tiles() -> None:
    schema = parameter_schema(rerun)
    form = schema.definitions["RerunConfig"]["properties"]
    assert form["run"]["type"] == "string"
    assert form["tiles"]["type"] == "array"
    assert form["tiles"]["items"]["type"] == "string"
    assert re.fullmatch(form["tiles"]["items"]["pattern"], "3,12")
    asked = rerun.validate_parameters({"config": {"run": "runs/a", "tiles": ["3,12"], "failed": True}})["config"]
    assert asked == RerunConfig(run=Path("runs/a"), tiles=((3, 12),), failed=True)
    assert RerunConfig.model_validate(json.loads(asked.model_dump_json())) == asked


def test_code_is_trusted_in_no_form_and_no_place_outside_of_the_archive_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "way-out").symlink_to(tmp_path)
    night = ArchiveConfig(source="in", out=archive, model="nets:make", trust_code=True)
    for flow, kind in ((segment, "SegmentConfig"), (segment_archive, "ArchiveConfig")):
        assert "trust_code" not in parameter_schema(flow).definitions[kind]["properties"]
    assert not any(
        "trust_code" in each.parameters.get("config", {}) for each in deployments_of(night, "0 1 * * *", None)
    )
    for name in (TRUSTED_MODEL, SERVED_ARCHIVE, "PREFECT__FLOW_RUN_ID"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    outside = SegmentConfig(image=tmp_path / "a.tif", out=tmp_path / "b", model="nets:make", trust_code=True)
    assert allowed(outside) == outside, "the command line is the user's own"
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "0")
    with pytest.raises(ConfigError, match=f"trust_code.*{TRUSTED_MODEL}=nets:make"):
        allowed(outside)
    serve_only(night)
    for place in (tmp_path / "b", archive / "../b", archive / "way-out/b", Path(f"{archive}-b"), "s3://bucket/b"):
        with pytest.raises(ConfigError, match="is outside of"):
            allowed(checked(SegmentConfig, {"image": tmp_path / "a.tif", "out": place}))
        with pytest.raises(ConfigError, match="is outside of"):
            allowed(checked(RerunConfig, {"run": place, "failed": True}))
    inside = SegmentConfig(image=tmp_path / "a.tif", out=archive / "b", model="nets:make")
    assert allowed(inside).trust_code
    assert allowed(ArchiveConfig.model_validate(night.model_dump(exclude={"trust_code"}))).trust_code
    other = {"image": tmp_path / "a.tif", "out": archive / "b", "model": "evil:make", "trust_code": True}
    with pytest.raises(ConfigError, match="evil:make"):
        allowed(SegmentConfig.model_validate(other))


def test_a_night_is_a_form_that_begins_with_where() -> None:
    form = parameter_schema(segment_archive).definitions["ArchiveConfig"]
    assert list(form["properties"])[:3] == ["source", "out", "model"]
    assert form["required"] == ["source", "out"]
    assert all("description" in each for each in form["properties"].values())


def test_the_recipe_for_a_work_pool_names_flows_that_there_are() -> None:
    recipe = yaml.safe_load((ROOT / "deploy/prefect.yaml").read_text())
    flows = {each["name"]: load_flow_from_entrypoint(each["entrypoint"]) for each in recipe["deployments"]}
    assert {name: flow.name for name, flow in flows.items()} == {name: name for name in flows}
    assert set(flows) == {"segment-image", "segment-archive", "rerun-tiles"}
    for each in recipe["deployments"]:
        if each.get("parameters"):
            flows[each["name"]].validate_parameters(each["parameters"])
    assert f"prefect=={recipe['prefect-version']}" in (ROOT / "requirements.lock").read_text().splitlines()


def test_a_schedule_makes_nights(prefect_url: str) -> None:
    """Prefect's scheduler works with the versions that are locked beside it."""
    api = Api(prefect_url)
    flow = api.post("flows/", {"name": "a-flow-of-nobody"})["id"]
    clock = {"active": True, "schedule": {"cron": "0 1 * * *", "timezone": "UTC"}}
    deployment = api.post("deployments/", {"name": "nightly", "flow_id": flow, "schedules": [clock]})["id"]
    deadline = time.monotonic() + 120
    while not (nights := api.post("flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}})):
        assert time.monotonic() < deadline, "the clock strikes, and no night is planned"
        time.sleep(0.3)
    assert {night["state"]["type"] for night in nights} == {"SCHEDULED"}
    assert all(night["expected_start_time"][11:19] == "01:00:00" for night in nights)


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is configured for this process, and what one writes is the test's own."""
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


@pytest.mark.usefixtures("own_server")
def test_nobody_takes_the_embedded_servers_port_nor_reads_it_from_another_page() -> None:
    server = EmbeddedServer().begin()
    url = os.environ["PREFECT_API_URL"]
    address = ("127.0.0.1", urlsplit(url).port or 0)
    with pytest.raises(OSError, match="Address already in use"):
        socket.create_server(address)
    with server:
        assert allowed_origin(f"{url}/health", "http://elsewhere.example") is None
        for own in (url.removesuffix("/api"), f"http://localhost:{address[1]}"):
            assert allowed_origin(f"{url}/health", own) == own


def allowed_origin(url: str, page: str) -> str | None:
    """Which pages a browser would let read the answer, when this one asks."""
    asked = urllib.request.Request(url, headers={"Origin": page})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return answer.headers.get("Access-Control-Allow-Origin")


ANSWERS_STRANGELY_FIRST = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
for answer in (b"\\0\\0\\x12\\4 not HTTP/1\\r\\n\\r\\n", b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n"):
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(answer)
    connection.close()
"""


def uses_as_server(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """The embedded server is this script, with the server's own arguments."""
    program = folder / "server"
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(0o755)
    monkeypatch.setattr("flows.lifecycle.prefect_server.sys.executable", str(program))


@pytest.mark.usefixtures("own_server")
def test_an_answer_that_is_not_http_is_no_answer_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uses_as_server(monkeypatch, tmp_path, ANSWERS_STRANGELY_FIRST)
    with EmbeddedServer().begin():
        pass


@pytest.mark.usefixtures("own_server")
def test_an_embedded_server_that_ends_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uses_as_server(monkeypatch, tmp_path, "raise SystemExit(7)")
    with (
        pytest.raises(FlowError, match=r"has ended with code 7.*prefect server start") as raised,
        EmbeddedServer().begin(),
    ):
        pass
    assert "\n" not in str(raised.value)


@pytest.fixture
def asked_once(tmp_path: Path) -> Path:
    """An archive that has seen a night, as far as `overtile serve` looks."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "slide.png").touch()
    config = ArchiveConfig(source=str(tmp_path / "in"), out=tmp_path / "nightly")
    card = ArchiveCard(created="2026", model="tiny", model_digest="", maths_version=1, asked={})
    Archive.create_or_resume(config.out, card).ledger.announce("night", {"config": config.model_dump(mode="json")})
    return tmp_path / "nightly"


def test_a_port_that_is_taken_is_refused(asked_once: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        ended = Cli(clean_environment(tmp_path / "prefect")).run("serve", asked_once, "--port", port, timeout=60)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert f"127.0.0.1:{port} can't be had (Address already in use)" in line
    assert "give another --port" in line
    assert ended.out == ""


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--cron", "0 1 31 2 *"),
        ("--timezone", "Mars/Olympus"),
        pytest.param("--cron", "61 25 * * *", marks=pytest.mark.slow),
        pytest.param("--cron", "", marks=pytest.mark.slow),
    ],
)
def test_a_clock_that_never_strikes_is_refused_before_a_server_starts(
    option: str, value: str, asked_once: Path, tmp_path: Path
) -> None:
    cli = Cli(clean_environment(tmp_path / "prefect"))
    ended = cli.run("serve", asked_once, "--port", free_port(), option, value, timeout=60)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith(f"error: {option} ")
    assert f"'{value}'" in line
    assert ended.out == ""


@pytest.fixture(scope="module")
def archive(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive after a first night over one slide."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "in").mkdir()
    write_noise(folder / "in/0.tif", 128, 192)
    model = save_tiny(folder / "tiny")
    ended = cli.run("archive", folder / "in", "--out", folder / "nightly", "--model", model, *QUICK)
    assert ended.code == 0, ended.err
    return folder / "nightly"


@pytest.fixture(scope="module")
def served(cli: Cli, archive: Path, prefect_url: str) -> Iterator[Api]:
    """`overtile serve` in a process of its own, whose clock strikes on leap days only."""
    log = (archive.parent / "serve.log").open("wb")
    command = [str(OVERTILE), "serve", str(archive), "--cron", "0 1 29 2 *"]
    process = subprocess.Popen(command, env=cli.environment, stdout=log, stderr=log)
    try:
        yield Api(prefect_url)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        log.close()


@pytest.mark.soak
def test_a_served_night_does_what_is_new_and_a_cancelled_one_goes_on(served: Api, archive: Path) -> None:
    night = served.deployment("segment-archive", f"{archive.name}-nights")
    write_noise(archive.parent / "in/1.tif", 50 * 64, 50 * 64, seed=1)
    first = served.start(night)
    served.wait(first, "RUNNING")
    second = served.start(night)
    assert served.wait(second, "CANCELLED")["type"] == "CANCELLED", "two nights never run on one archive"
    wait_for_tiles(archive / "slides/1.tif", 40)
    served.post(f"flow_runs/{first}/set_state", {"state": {"type": "CANCELLING"}})
    assert served.wait(first, "CANCELLED", "CRASHED", "FAILED")["type"] == "CANCELLED"
    known = {record.slide: record.state for record in Archive.open(archive).ledger}
    assert known == {"0.tif": SlideState.DONE, "1.tif": SlideState.BEGUN}
    tiles = len(list(Run.open(archive / "slides/1.tif").ledger.records()))
    assert 40 <= tiles < 2500
    # The flow has said that it is cancelled; the process that serves says so too, once its child has ended, and would
    # take back a retry that came before.
    wait_until_told(served, first)
    # What the button "Retry" of Prefect's page does: the same flow run is begun again.
    served.post(f"flow_runs/{first}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})
    assert served.wait(first, "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
    done = [record.tile for record in Run.open(archive / "slides/1.tif").ledger.records()]
    assert sorted(done) == list(range(2500)), "no tile was lost with the cancelled night, none computed twice"
    assert {record.state for record in Archive.open(archive).ledger} == {SlideState.DONE}


def wait_until_told(served: Api, flow_run: str) -> None:
    deadline = time.monotonic() + 60
    while "cancelled successfully" not in (served.wait(flow_run, "CANCELLED")["message"] or ""):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.soak
def test_a_tile_is_rerun_from_the_form(served: Api, archive: Path) -> None:
    run = archive / "slides/0.tif"
    before = mask_files(run)
    (run / "mask.ome.zarr/0/c/1/2").write_bytes(b"rotten")
    flow_run = served.start(
        served.deployment("rerun-tiles", f"{archive.name}-single-tiles"), {"run": str(run), "tiles": ["1,2"]}
    )
    assert served.wait(flow_run, "COMPLETED", "FAILED", "CRASHED")["type"] == "COMPLETED"
    assert mask_files(run) == before


@pytest.mark.soak
def test_a_night_with_a_failed_slide_has_failed_in_prefect_too(served: Api, archive: Path) -> None:
    (archive.parent / "in/bad.tif").write_bytes(b"II*\0 and nothing else")
    flow_run = served.start(served.deployment("segment-archive", f"{archive.name}-nights"))
    state = served.wait(flow_run, "COMPLETED", "FAILED", "CRASHED")
    assert state["type"] == "FAILED"
    assert "1 failed" in state["message"]
    assert "encountered an exception" not in state["message"]
    artifacts = served.post("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run]}}})
    failed = next(each for each in artifacts if each["key"] == artifact_key("failed-slides", archive))
    assert "bad.tif" in failed["data"]
    logs = served.post("logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run]}}})
    assert not [each["message"] for each in logs if "Traceback" in each["message"]]
    (archive.parent / "in/bad.tif").unlink()


@pytest.mark.soak
def test_pages_at_another_port_ask_the_server_there(cli: Cli, archive: Path) -> None:
    port = free_port()
    environment = {name: value for name, value in cli.environment.items() if name != "PREFECT_API_URL"}
    command = [str(OVERTILE), "serve", str(archive), "--cron", "0 1 29 2 *", "--port", str(port)]
    log = archive.parent / "pages.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        wait_for_server(process, f"http://127.0.0.1:{port}/api", log)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ui-settings", timeout=30) as answer:
            assert json.loads(answer.read())["api_url"] == f"http://127.0.0.1:{port}/api"
        local = f"http://localhost:{port}"
        assert allowed_origin(f"http://127.0.0.1:{port}/api/health", local) == local
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
