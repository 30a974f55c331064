"""`overtile doctor` on a machine that lacks things, one by one."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest
from cli import Cli, clean_environment, free_port, tissue_photograph
from object_store import BUCKET, faulty_proxy, place, s3_server
from ray_nodes import cluster
from tiny import write_noise

from flows.doctor import machine, storage
from flows.doctor.checks import Check, DoctorConfig, Level
from flows.doctor.cluster import check_prefect, check_ray
from flows.doctor.examine import examine
from flows.doctor.nodes import shared_probe
from flows.doctor.storage import check_image, check_storage
from tiling.storage.object_path import ObjectPath


def only(checks: Iterator[Check]) -> Check:
    (check,) = checks
    return check


def by_name(checks: Iterator[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


ROOM = {"memory", "shared memory", "temporary folder", "space"}  # of the machine at hand, which other tests fill


def lacking(checks: Iterable[Check]) -> list[Check]:
    """Checks that found something missing, other than room on the machine that the tests happen to run on."""
    return [check for check in checks if check.verdict is Level.missing and check.name not in ROOM]


def test_a_machine_that_has_everything_lacks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    checks = list(examine(DoctorConfig(image=tissue_photograph(), out=tmp_path / "runs" / "new", workers=1)))
    assert lacking(checks) == []
    names = [check.name for check in checks]
    assert {"python", "packages", "processor", "clock", "open files", "memory", "space", "prefect"} <= set(names)
    assert list(tmp_path.iterdir()) == [], "the probe leaves nothing behind"


def test_a_package_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asks = ["torch==9.9", "zarr>=3", "no-such-package>=1", "pytest>=99; extra == 'dev'"]
    monkeypatch.setattr(machine, "requires", lambda _name: asks)
    check = by_name(machine.check_machine(DoctorConfig()))["packages"]
    assert check.verdict is Level.missing
    assert f"torch {version('torch')} is installed, ==9.9 is needed" in check.found
    assert "no-such-package is not installed" in check.found
    assert "zarr" not in check.found
    assert "pytest" not in check.found
    assert shlex.split(check.remedy) == [sys.executable, "-m", "pip", "install", "torch==9.9", "no-such-package>=1"]


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system that nobody can write, not even root."""
    disk = tmp_path / "read-only"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a read-only file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_read_only_folder_is_missing(read_only_disk: Path) -> None:
    check = only(check_storage(read_only_disk / "runs"))
    assert check.verdict is Level.missing
    assert "Read-only file system" in check.found
    assert "give another --out" in check.remedy


def test_a_small_disk_is_missing_and_left_as_it_was(small_disk: Path) -> None:
    (small_disk / "keep").write_bytes(b"mine")
    check = only(check_storage(small_disk))
    assert check.verdict is Level.missing
    assert "No space left on device" in check.found
    assert [path.name for path in small_disk.iterdir()] == ["keep"]


def test_a_temporary_folder_on_a_nearly_full_disk_is_missing(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(small_disk)
    (small_disk / "filler").write_bytes(bytes(usage.total * 96 // 100 - usage.used))
    monkeypatch.setenv("RAY_TMPDIR", str(small_disk))
    check = by_name(machine.check_machine(DoctorConfig()))["temporary folder"]
    assert check.verdict is Level.missing
    assert "Ray refuses above 95 %" in check.found


def test_a_file_in_the_place_of_a_folder_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = only(check_storage(tmp_path / "file" / "runs"))
    assert (check.verdict, check.remedy) == (Level.missing, "give another --out")


def test_a_plan_that_does_not_fit_into_memory_says_how_many_workers_do() -> None:
    checks = by_name(check_image(DoctorConfig(image=tissue_photograph(), workers=100_000)))
    assert checks["memory"].verdict is Level.missing
    assert checks["memory"].remedy.startswith("--workers ")
    reading = next(check for name, check in checks.items() if name.startswith("image "))
    assert "512 x 512 px" in reading.found


def test_a_full_disk_is_held_against_the_plan(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(3 << 20))
    space = by_name(check_image(DoctorConfig(image=tissue_photograph(), out=small_disk, workers=4)))["space"]
    assert space.verdict is Level.missing


def test_an_image_or_model_that_cannot_be_used_is_missing(tmp_path: Path) -> None:
    absent = only(check_image(DoctorConfig(image=tmp_path / "absent.svs")))
    assert absent.verdict is Level.missing
    checks = by_name(check_image(DoctorConfig(image=tissue_photograph(), model=str(tmp_path))))
    assert checks[f"model {tmp_path}"].verdict is Level.missing


def test_an_object_store_is_written_listed_and_tested_for_its_promise() -> None:
    with s3_server():
        before = list(place("").iterdir())  # a bucket outlives its server in one process
        check = only(check_storage(place("runs")))
        # Slow where other tests run beside this one, and then no more than a warning.
        assert check.verdict is not Level.missing, check
        assert list(place("").iterdir()) == before
        wrong = only(check_storage(ObjectPath.parse("s3://no-such-bucket/runs")))
        assert wrong.verdict is Level.missing
        assert BUCKET not in wrong.found


def test_a_storage_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended = threading.Event()
    monkeypatch.setattr(storage, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(storage, "_probe_folder", lambda *_: ended.wait(30))
    check = only(check_storage(tmp_path))
    ended.set()
    assert check.verdict is Level.missing
    assert "no answer" in check.found


# Prefect


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Generator[str]:
    """An HTTP server with one answer, as an older or a guarded Prefect would give."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        server.server_close()


def test_a_real_prefect_server_of_this_version_is_well(prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    assert only(check_prefect()) == Check.ok("prefect", f"{version('prefect')} at {prefect_url}")


def test_prefect_of_another_version_or_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, b'"3.0.0"', Date="Thu, 01 Jan 2026 00:00:00 GMT") as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        other, clock = check_prefect()
    assert other.verdict is Level.missing
    assert "3.0.0" in other.found
    assert f"prefect=={version('prefect')}" in other.remedy
    assert clock.verdict is Level.warning


@pytest.mark.parametrize(
    ("status", "body", "remedy"),
    [(401, b"{}", "PREFECT_API_AUTH_STRING"), (404, b"{}", "PREFECT_API_URL"), (200, b"<html>", "PREFECT_API_URL")],
)
def test_what_is_not_prefect_or_refuses_is_missing(
    status: int, body: bytes, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(status, body) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        check = only(check_prefect())
    assert check.verdict is Level.missing
    assert remedy in check.remedy


def test_what_does_not_speak_http_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_strangely, args=(listener,), daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{listener.getsockname()[1]}/api")
        check = only(check_prefect())
    assert check.verdict is Level.missing
    assert "PREFECT_API_URL" in check.remedy


def answer_strangely(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"\0\0\x12\4 not HTTP/1\r\n\r\n")


def test_no_prefect_at_the_address_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    check = only(check_prefect())
    assert check.verdict is Level.missing
    assert "Connection refused" in check.found


# Ray


def test_no_ray_at_the_address_is_missing() -> None:
    check = only(check_ray(f"127.0.0.1:{free_port()}", None))
    assert check.verdict is Level.missing
    assert "nothing answers" in check.found
    assert "--ray-address" in check.remedy


@pytest.mark.slow
def test_every_node_of_a_cluster_is_asked_and_strangers_are_told_of_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, ray = free_port(), Path(sys.executable).parent / "ray"
    environment = clean_environment(tmp_path / "prefect", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 64)
    options = ["--num-cpus=1", "--object-store-memory=80000000", "--include-dashboard=false", "--block"]
    command = [str(ray), "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}", *options]
    head = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        ended = Cli(environment).run("doctor", "--ray-address", f"127.0.0.1:{port}", "--out", tmp_path, "--json")
        found = [Check(**each | {"verdict": Level(each["verdict"])}) for each in json.loads(ended.out)["checks"]]
        assert lacking(found) == []
        checks = by_name(iter(found))
        assert "1 nodes, 1 CPUs" in checks["ray"].found
        (node,) = (check for name, check in checks.items() if name.startswith("node "))
        assert node.found.startswith("the same versions as here, ")
        assert ended.code == (3 if any(check.verdict is Level.missing for check in found) else 0)
        for token in ("b" * 64, ""):
            monkeypatch.setenv("RAY_AUTH_TOKEN", token)
            refused = only(check_ray(f"127.0.0.1:{port}", None))
            assert refused.verdict is Level.missing
            assert "RAY_AUTH_TOKEN" in refused.remedy
            assert "b" * 64 not in str(refused)
    finally:
        head.terminate()
        head.wait(60)


@pytest.mark.soak
def test_a_node_without_the_shared_storage_or_the_image_is_named(tmp_path: Path) -> None:
    runs, private, image = tmp_path / "runs", tmp_path / "private", tmp_path / "images" / "one.tif"
    for folder in (runs, private, image.parent):
        folder.mkdir()
    write_noise(image, 64, 64)
    with cluster(tmp_path / "cluster") as ray:
        ray.join(within=without(tmp_path, runs))
        ray.join(within=without(tmp_path, image.parent))
        asked = ("--ray-address", ray.address, "--out", runs / "new", "--image", image, "--json")
        ended = ray.cli.run("doctor", *asked)
    assert ended.code == 3, ended.err
    nodes = [check for check in json.loads(ended.out)["checks"] if check["name"].startswith("node ")]
    assert sorted(check["verdict"] for check in nodes) == ["missing", "missing", "ok"], "the head lacks nothing"
    faults = {check["found"].partition(" (")[0]: check["remedy"] for check in nodes if check["verdict"] == "missing"}
    assert "mount the runs' storage on every node" in faults["it doesn't share the runs' storage with this machine"]
    assert "at the same path" in faults["the image can't be opened there"]
    assert list(runs.iterdir()) == [], "nothing is left of the probe"


def without(private: Path, folder: Path) -> list[str]:
    """What comes before a command that sees an empty folder in that one's place, as on a machine without the mount."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a mount namespace needs root")
    return ["unshare", "--mount", "sh", "-c", f'mount --bind {private / "private"} {folder} && exec "$@"', "sh"]


def test_a_node_that_shares_the_folder_answers_and_is_seen(tmp_path: Path) -> None:
    with shared_probe(tmp_path / "runs" / "new") as probe:
        assert probe is not None
        assert (probe.answer("a"), probe.expect_answer("a")) == (None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_node_with_a_copy_of_the_folder_does_not_share_it(tmp_path: Path) -> None:
    """As where folders are synchronised now and then: it reads the driver's word, and what it writes stays there."""
    (tmp_path / "runs").mkdir()
    with shared_probe(tmp_path / "runs") as probe:
        assert probe is not None
        shutil.copytree(probe.folder, tmp_path / "copy")
        assert replace(probe, folder=str(tmp_path / "copy")).answer("a") is None
        assert "No such file" in (probe.expect_answer("a") or "")


def test_a_node_is_not_probed_where_this_machine_cannot_write(read_only_disk: Path) -> None:
    with shared_probe(read_only_disk) as probe:
        assert probe is None


@pytest.mark.usefixtures("few_retries")
def test_a_node_whose_credentials_do_not_reach_the_bucket_is_told_so() -> None:
    with s3_server() as endpoint:
        before = list(place("").iterdir())
        with shared_probe(place("runs")) as probe:
            assert probe is not None
            assert (probe.answer("a"), probe.expect_answer("a")) == (None, None)
            with faulty_proxy(endpoint, lambda *_: "403"):
                assert "refuses access" in (probe.answer("b") or "")
            with faulty_proxy(endpoint, lambda method, *_: "403" if method == "PUT" else None):
                assert "refuses access" in (probe.answer("c") or ""), "reading is not enough"
        assert list(place("").iterdir()) == before
    assert "credentials" in probe.remedy


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.2)
    pytest.fail("Ray did not start")


# The command


def test_lines_for_people_end_with_a_count_and_exit_code(tmp_path: Path, prefect_url: str) -> None:
    environment = clean_environment(tmp_path, PREFECT_API_URL=prefect_url)
    ended = Cli(environment).run("doctor", "--ray-address", f"127.0.0.1:{free_port()}")
    assert ended.code == 3
    lines = ended.out.splitlines()
    assert any(line.startswith("missing ray: nothing answers at") for line in lines)
    assert any(line.strip().startswith("→ start it there") for line in lines)
    assert lines[-1].endswith(f"{sum(line.startswith('missing ') for line in lines)} missing")
