"""Cancel in Prefect of a flow run that a command began: it ends as by SIGTERM, and its page says so."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cli import Cli
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect_api import Api
from tiny import save_tiny, write_noise
from waiting import wait_for_tiles

from flows.lifecycle import cancellation
from flows.lifecycle.cancellation import Cancellation
from flows.lifecycle.stopping import forget_cancel, is_cancelled, stop_on_signals
from tiling.runs.run import Run

FLOWS = """
import sys, time
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.states import Cancelling
from flows.errors import StoppedError
from flows.launch import run_recorded
from flows.lifecycle import cancellation
from flows.lifecycle.flow_states import stoppable
from flows.lifecycle.stopping import sigterm_as_error, stop_on_signals, stopped_by

def cancel():
    run = FlowRunContext.get().flow_run.id
    print(run)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Cancelling())

def infers(config):
    with stop_on_signals() as stop:
        cancel()
        while stop.by is None:
            time.sleep(0.01)
    raise stopped_by(stop.by, f"7 tiles done, ended by {stop.name}")

def stitches(config):
    cancel()
    while True:
        time.sleep(0.01)

def ends(config):
    cancellation.ASKING_SECONDS = 3600.0
    cancel()
    return "all is done"

cancellation.ASKING_SECONDS = 0.05
for work in (infers, stitches, ends):
    try:
        with sigterm_as_error():
            print("returned", run_recorded(flow(name="cancelled")(stoppable(work)), None, is_reachable=True))
    except StoppedError as error:
        print(error.signal_number, error, error.outcome)
"""


def test_a_flow_stops_wherever_it_is_and_its_run_is_cancelled(cli: Cli, prefect_url: str) -> None:
    environment = {**cli.environment, "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    command = [sys.executable, "-c", FLOWS]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == 0, ended.stderr
    runs, said = ended.stdout.splitlines()[::2], ended.stdout.splitlines()[1::2]
    assert said == [
        "15 cancelled in Prefect; the same command resumes 7 tiles done, ended by a cancel in Prefect",
        "15 cancelled in Prefect; the same command resumes None",
        "returned all is done",
    ]
    states = [Api(prefect_url).get(f"flow_runs/{run}")["state"] for run in runs]
    assert [state["type"] for state in states] == ["CANCELLED"] * 3
    assert [state["message"] for state in states] == [
        "cancelled in Prefect; the same command resumes; 7 tiles done, ended by a cancel in Prefect",
        "cancelled in Prefect; the same command resumes",
        "cancelled when its work had ended",
    ]


class Recovering(BaseHTTPRequestHandler):
    """A server that is away for some requests, and then knows of a flow run that is being cancelled."""

    away = 3

    def do_GET(self) -> None:
        if "flow_runs" not in self.path:
            return self._answer(404, {})
        type(self).away -= 1
        if self.away >= 0:
            return self._answer(500, {})
        found = {"id": str(uuid4()), "flow_id": str(uuid4()), "name": "a", "state": {"type": "CANCELLING"}}
        return self._answer(200, found)

    def _answer(self, status: int, message: object) -> None:
        text = json.dumps(message).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        del code, size


@pytest.fixture
def recovering() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (Recovering,), {}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def test_a_server_that_is_away_stops_nothing_and_is_asked_again(
    recovering: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cancellation, "ASKING_SECONDS", 0.01)
    forget_cancel()
    with temporary_settings({PREFECT_API_URL: recovering, PREFECT_CLIENT_MAX_RETRIES: 0}), stop_on_signals() as stop:
        heard = threading.Event()
        monkeypatch.setattr(cancellation, "stop_as_cancelled", heard.set)
        with Cancellation().heeded(UUID(int=1)):
            assert heard.wait(60)
    assert stop.by is None
    assert not is_cancelled()
    assert not caplog.messages


@pytest.mark.slow
def test_a_night_of_the_command_line_is_cancelled_by_prefects_own_command(
    cli: Cli, prefect_url: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    write_noise(tmp_path / "in/0.tif", 50 * 64, 50 * 64)
    model, line, archive = save_tiny(tmp_path / "tiny"), tmp_path / "line", tmp_path / "cancelled"
    quick = ("--core", 64, "--foreground", "none", "--workers", 2, "--settle", "0s", "--notify", f"tee {line}")
    night = ("archive", tmp_path / "in", "--out", archive, "--model", model, *quick)
    process = cli.start(*night, log=tmp_path / "log")
    wait_for_tiles(archive / "slides/0.tif", 40)
    known = Api(prefect_url).post("flow_runs/filter", {"flow_runs": {"name": {"like_": f"{archive.name}: night of"}}})
    (flow_run,) = (each["id"] for each in known)
    asked = subprocess.run(
        [Path(sys.executable).parent / "prefect", "flow-run", "cancel", flow_run],
        env=cli.environment,
        capture_output=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert process.wait(60) == 143
    assert (tmp_path / "log").read_text().splitlines()[-1] == "error: cancelled in Prefect; the same command resumes"
    assert "ended by a cancel in Prefect" in line.read_text()
    assert "backlog remains" in line.read_text()
    state = Api(prefect_url).get(f"flow_runs/{flow_run}")["state"]
    assert (state["type"], "ended by a cancel in Prefect" in state["message"]) == ("CANCELLED", True)
    tiles = len(list(Run.open(archive / "slides/0.tif").ledger.records()))
    assert 40 <= tiles < 2500
    assert cli.run(*night, timeout=900).code == 0
    done = [record.tile for record in Run.open(archive / "slides/0.tif").ledger.records()]
    assert sorted(done) == list(range(2500)), "no tile is lost, none computed twice"
