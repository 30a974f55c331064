"""Fixtures that every test file shares."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

# Test processes side by side have a core each: with more threads than cores, threads wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray makes its workers nice, and beside another test process they would starve.
os.environ.setdefault("RAY_worker_niceness", "0")
# What is measured or made once is kept for the next run of the tests, and never among the user's.
os.environ["XDG_CACHE_HOME"] = str(Path(__file__).resolve().parents[1] / "build" / "test-cache")

import pytest
from cli import Cli, clean_environment, free_port
from hypothesis import settings

HAS_TORCH = find_spec("torch") is not None
pytest_plugins = ["accounts", "browsers", "exported_runs", *(["threads", "night_pool"] if HAS_TORCH else [])]
"""Fixtures that several test files share and others don't need."""

# Speed is a benchmark, never a timed test: a loaded machine must not fail one. The same examples each time, so that
# a change is judged by what it changed; `make soak` draws new ones.
settings.register_profile("overtile", deadline=None, derandomize=True)
settings.register_profile("soak", deadline=None, derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("OVERTILE_HYPOTHESIS", "overtile"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless it is asked for."""
    if os.environ.get("OVERTILE_SOAK"):
        return
    for item in items:
        if item.get_closest_marker("soak") is not None:
            item.add_marker(pytest.mark.skip(reason="takes minutes: make soak, or OVERTILE_SOAK=1"))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip files that import torch where it isn't installed, as in the environment of `make test-newest`."""
    report = yield
    if not HAS_TORCH and report.failed and "No module named 'torch'" in str(report.longrepr):
        report.outcome, report.longrepr = "skipped", (report.nodeid, 0, "Skipped: torch is not installed")
    return report


DATA_DIR = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of open imagery beside the project; tests that look at it skip where it is absent."""
    if not DATA_DIR.is_dir():
        pytest.skip("the folder of open imagery (../shared/data) is absent")
    return DATA_DIR


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """The folder of small inputs with one trait each; tests that look at it skip where it is absent."""
    folder = DATA_DIR.parent / "cases"
    if not folder.is_dir():
        pytest.skip("the folder of cases (../shared/cases) is absent")
    return folder


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server for the whole session."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    command = [str(Path(sys.executable).parent / "prefect"), "server", "start", "--host", "127.0.0.1"]
    environment = clean_environment(home, PREFECT_SERVER_ANALYTICS_ENABLED="false")
    log = (home / "server.log").open("wb")
    server = subprocess.Popen([*command, "--port", str(port)], env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_for_server(server, url, home / "server.log")
        yield url
    finally:
        server.terminate()
        server.wait(30)
        log.close()


@pytest.fixture
def reporting(prefect_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process, and what it starts, reports to the session's Prefect server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    for name, value in clean_environment(tmp_path / "prefect-client", PREFECT_API_URL=prefect_url).items():
        monkeypatch.setenv(name, value)
    with temporary_settings({PREFECT_API_URL: prefect_url}):  # it has read them already, and would start its own server
        yield


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A real S3 server with one bucket for all tests of a file, to which this process is connected."""
    from object_store import s3_server

    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Object stores that fail are given up on soon."""
    from tiling.storage import connection

    monkeypatch.setattr(connection, "MAX_RETRIES", 4)
    monkeypatch.setattr(connection, "FIRST_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(connection, "LONGEST_BACKOFF_SECONDS", 0.05)
    monkeypatch.setattr(connection, "SILENCE_SECONDS", 0.5)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One Ray for all tests of a file; the folder tells its actors when to fail."""
    import ray
    from faulty_actors import FAULTS

    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FAULTS, str(folder))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent / "support"), prepend=":")
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
        yield folder
        ray.shutdown()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def wait_for_server(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Prefect's server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)


@pytest.fixture(scope="session")
def cli(prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command line, reporting to the session's Prefect server."""
    home = tmp_path_factory.mktemp("prefect-client")
    return Cli(clean_environment(home, PREFECT_API_URL=prefect_url))
