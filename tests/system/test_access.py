"""Access to a run's servers: nothing beyond localhost, and there nothing to those without the token."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from accounts import BECOME_NOBODY, as_nobody
from cli import Cli, clean_environment
from tiny import save_tiny, write_noise

from tiling.runs.run import Run

Listener = tuple[str, str]  # process, address

ASK_EVERY_PORT = f"""
import copy, email.parser, encodings.idna, grpc, grpc._channel, grpc._common, http.client, json, os, sys
{BECOME_NOBODY}
calls = ("ray.rpc.NodeInfoGcsService/GetAllNodeInfo", "ray.rpc.InternalKVGcsService/InternalKVKeys",
         "ray.rpc.JobInfoGcsService/GetAllJobInfo", "ray.rpc.NodeManagerService/GetNodeStats",
         "ray.rpc.NodeManagerService/RequestWorkerLease", "ray.rpc.CoreWorkerService/PushTask",
         "ray.rpc.CoreWorkerService/GetCoreWorkerStats", "ray.rpc.CoreWorkerService/KillActor",
         "ray.rpc.ObjectManagerService/Pull", "ray.rpc.ObjectManagerService/FreeObjects",
         "ray.rpc.ReporterService/GetTraceback", "ray.rpc.autoscaler.AutoscalerStateService/GetClusterStatus")
got, said = [], {{}}
for port in map(int, sys.argv[2:]):
    with grpc.insecure_channel(f"127.0.0.1:{{port}}") as channel:
        for call in calls:
            try:
                channel.unary_unary("/" + call)(b"", timeout=5)
                got.append((port, call))
            except grpc.RpcError as error:
                said.setdefault(error.code().name, []).append(port)
                if error.code().name not in ("UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE"):
                    got.append((port, call, error.code().name, error.details()))
    for path in ("/", "/api/version", "/api/jobs/", "/api/local_raylet_healthz", "/nodes", "/logs", "/metrics",
                 "/api/admin/settings", "/api/job_agent/jobs/", "/docs", "/openapi.json"):
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            asked.request("GET", path)
            answer = asked.getresponse()
            said.setdefault(answer.status, []).append(port)
            if answer.status < 400:
                got.append((port, path, answer.status, answer.read(300).decode(errors="replace")))
        except (OSError, http.client.HTTPException):
            pass
        asked.close()
for folder in sys.argv[1].split(":"):
    try:
        got.append((folder, os.listdir(folder)))
    except OSError:
        pass
print(json.dumps([got, sorted(map(str, said))]))
"""

ASK = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=20)))
"""


def listeners(root: int) -> set[Listener]:
    """Every socket that the process or one of its descendants listens at, TCP and UDP."""
    found: set[Listener] = set()
    for process in descendants(root):
        try:
            name = " ".join(process.cmdline())
            found |= {
                (name, connection.laddr.ip)
                for connection in process.net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN or (connection.type == 2 and not connection.raddr)
            }
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def descendants(root: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command with its own Prefect and Ray, in the middle of its tiles, in a home directory of its own."""
    image, model = write_noise(tmp_path / "noise.tif", 2048, 2048), save_tiny(tmp_path / "tiny")
    cli = Cli(clean_environment(tmp_path / "prefect", HOME=str(tmp_path / "home")))
    options = ("--model", model, "--out", tmp_path / "run", "--core", 32, "--foreground", "none", "--workers", 1)
    driver = cli.start("segment", image, *options)
    try:
        deadline = time.monotonic() + 250
        while not (tmp_path / "run" / "run.json").is_file() or not list(Run.open(tmp_path / "run").ledger.records()):
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield driver
    finally:
        driver.send_signal(signal.SIGTERM)
        driver.wait(60)


@pytest.mark.slow
def test_a_run_listens_on_localhost_only_and_its_ray_asks_for_a_token(
    driver: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    seen: set[Listener] = set()
    for _ in range(5):
        seen |= listeners(driver.pid)
        time.sleep(0.1)
    names = "\n".join(name for name, _ in seen)
    for expected in (
        "gcs_server",
        "raylet",
        "dashboard/agent.py",
        "ray::TileActor",
        "flows.lifecycle.prefect_login:create_app",
    ):
        assert expected in names, f"{expected} is looked at"
    assert {(name[-60:], address) for name, address in seen if not is_local(address)} == set()

    raylet = next(each for each in descendants(driver.pid) if Path("".join(each.cmdline()[:1])).name == "raylet")
    address, session = option(raylet, "gcs-address"), Path(option(raylet, "session_dir"))
    token = raylet.environ()["RAY_AUTH_TOKEN"]
    assert answer(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) == "1"
    for wrong in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        assert "uthenticat" in answer(address, **wrong)
    assert not (tmp_path / "home" / ".ray").exists(), "no token lies in a file"
    assert token not in "".join(file.read_text() for file in (tmp_path / "run").rglob("*.json*"))
    assert any(not folder.stat().st_mode & 0o077 for folder in session.parents), "others can't reach Ray's sockets"

    server = next(
        each for each in descendants(driver.pid) if "flows.lifecycle.prefect_login" in " ".join(each.cmdline())
    )
    (port,) = {connection.laddr.port for connection in server.net_connections("tcp") if connection.status == "LISTEN"}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/admin/version", timeout=30)

    ports = {str(each) for process in descendants(driver.pid) for each in ports_of(process)}
    folders = ":".join([str(session), server.environ()["PREFECT_HOME"]])
    assert str(port) in ports
    got, said = json.loads(as_nobody(ASK_EVERY_PORT, folders, *sorted(ports)))
    # Ray asks nobody whether its node is well, nor for counters of its autoscaler and dashboard, which know of no run.
    harmless = ("success", "# HELP autoscaler_", "# HELP ray_dashboard_")
    assert [each for each in got if not str(each[-1]).startswith(harmless)] == []
    assert {"UNAUTHENTICATED", "401"} <= set(said), "it has spoken to Ray and to Prefect"


def ports_of(process: psutil.Process) -> set[int]:
    """Where it listens by TCP."""
    try:
        return {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return set()


def is_local(address: str) -> bool:
    ip = ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def option(process: psutil.Process, name: str) -> str:
    return next(part.partition("=")[2] for part in process.cmdline() if part.startswith(f"--{name}="))


def answer(address: str, **environment: str) -> str:
    """What Ray says to somebody else who asks for the cluster's nodes: their number, or an error's last line."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, address],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return asked.stdout.strip() or asked.stderr.strip()
