"""The servers that a run leans on are killed in its middle: Prefect's costs nothing, Ray's ends it soon on one line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from cli import OVERTILE, Cli, clean_environment, free_port, mask_files
from conftest import wait_for_server
from tiny import save_tiny, write_noise

SIDE, CORE = 1024, 64
TILES = (SIDE // CORE) ** 2
KINDS = {
    "tile actor": ("ray::TileActor",),
    "raylet": ("/raylet/raylet ",),
    "gcs_server": ("/gcs/gcs_server ",),
    "dashboard agent": ("ray::DashboardAgent",),
    "log monitor": ("/log_monitor.py ",),
    "runtime agent": ("ray::RuntimeEnvAgent",),
    "Prefect's server": ("prefect.server.api.server:create_app", "flows.lifecycle.prefect_login:create_app"),
}
"""What the command line of each holds."""


@dataclass(slots=True)
class Job:
    """A command, and what its mask must be."""

    image: Path
    model: Path
    folder: Path
    mask: dict[str, bytes]

    def command(self, folder: Path) -> list[str]:
        options = ("--out", folder, "--model", self.model, "--core", CORE, "--foreground", "none", "--workers", 1)
        return [str(OVERTILE), "segment", str(self.image), *map(str, options)]


@pytest.fixture(scope="module")
def job(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    image, model = write_noise(folder / "noise.tif", SIDE, SIDE), save_tiny(folder / "tiny")
    made = Job(image, model, folder / "undisturbed", {})
    ended = cli.run(*made.command(made.folder)[1:], timeout=400)
    assert ended.code == 0, ended.err
    made.mask = mask_files(made.folder)
    return made


@dataclass(slots=True)
class Driver:
    """A run that is in the middle of inference."""

    process: subprocess.Popen[str]
    folder: Path

    def kill(self, kind: str) -> None:
        """One of its processes."""
        self.send(kind, signal.SIGKILL)

    def send(self, kind: str, sent: signal.Signals) -> None:
        """To one of its processes."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if kind_of(" ".join(child.cmdline())) == kind:
                    child.send_signal(sent)
                    return
        pytest.fail(f"no {kind} among the driver's processes")

    def end(self, seconds: float) -> tuple[int, str]:
        """Its exit code and all that it says to the terminal's error stream."""
        _, output = self.process.communicate(timeout=seconds)
        return self.process.returncode, output.strip()


def kind_of(command: str) -> str | None:
    return next((kind for kind, names in KINDS.items() if any(name in command for name in names)), None)


def begun(command: list[str], folder: Path, environment: dict[str, str]) -> Driver:
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=pipe, text=True)
    deadline = time.monotonic() + 300
    while sum(1 for _ in folder.glob("mask.ome.zarr/0/c/*/[0-9]*")) < 20:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"never in the middle: {process.communicate()[1]}")
        time.sleep(0.01)
    return Driver(process, folder)


@pytest.fixture
def driver(job: Job, tmp_path: Path) -> Iterator[Driver]:
    """One with servers of its own."""
    folder = tmp_path / "run"
    started = begun(job.command(folder), folder, clean_environment(tmp_path / "home"))
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.slow
def test_prefects_embedded_server_is_killed_and_the_run_is_complete(job: Job, driver: Driver) -> None:
    driver.kill("Prefect's server")
    code, output = driver.end(300)
    assert code == 0
    assert re.fullmatch("WARNING flows[^\n]+Prefect's server can't be reached[^\n]+", output), output
    assert mask_files(driver.folder) == job.mask
    assert (driver.folder / "overlay.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gcs_server", pytest.param("raylet", marks=pytest.mark.soak)])
def test_an_embedded_ray_that_dies_while_it_starts_ends_the_run_on_one_line(
    cli: Cli, job: Job, tmp_path: Path, kind: str
) -> None:
    command, environment = job.command(tmp_path / "run"), clean_environment(tmp_path / "home")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    kill_at_birth(process, kind)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.fullmatch("error: Ray('s| can't be started)[^\n]+same command [^\n]+", output.strip()), output
    again = cli.run(*command[1:], timeout=400)
    assert again.code == 0, again.err
    assert mask_files(tmp_path / "run") == job.mask


def kill_at_birth(process: subprocess.Popen[str], kind: str) -> None:
    """A process of its Ray, as soon as there is one."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if kind_of(" ".join(child.cmdline())) == kind:
                    child.kill()
                    return
        time.sleep(0.005)
    pytest.fail(f"no {kind} among the driver's processes")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "raylet",
        "gcs_server",
        pytest.param("dashboard agent", marks=pytest.mark.soak),
        pytest.param("runtime agent", marks=pytest.mark.soak),
    ],
)
def test_an_embedded_ray_that_dies_ends_the_run_on_one_line_and_it_resumes(
    cli: Cli, job: Job, driver: Driver, kind: str
) -> None:
    driver.kill(kind)
    code, output = driver.end(60)
    assert code == 1
    output = "\n".join(
        line for line in output.splitlines() if not line.startswith("WARNING flows.")
    )  # tiles tried again
    assert re.fullmatch("error: Ray's (raylet|gcs_server)[^\n]+the same command resumes[^\n]+", output), output
    again = cli.run(*job.command(driver.folder)[1:], timeout=400)
    assert again.code == 0, again.err
    assert mask_files(driver.folder) == job.mask


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["raylet", "gcs_server"])
def test_an_embedded_ray_that_stands_still_ends_the_run_on_one_line_and_it_resumes(
    cli: Cli, job: Job, driver: Driver, kind: str
) -> None:
    """A process that was stopped is there, answers nobody and ends nothing; without its actor the run needs it."""
    driver.send(kind, signal.SIGSTOP)
    driver.kill("tile actor")
    code, output = driver.end(150)
    assert code == 1
    output = "\n".join(
        line for line in output.splitlines() if not line.startswith("WARNING flows.")
    )  # tiles tried again
    assert re.fullmatch(r"error: Ray's \w+, which this command has started, [^\n]+", output), output
    resumed = cli.run(*job.command(driver.folder)[1:])
    assert resumed.code == 0, resumed.err
    assert mask_files(driver.folder) == job.mask


@pytest.mark.soak
def test_a_raylet_that_stands_still_costs_nothing_where_no_actor_needs_it(job: Job, driver: Driver) -> None:
    """Work goes to the actors without it, so the run is complete and its exit status is that of its work."""
    driver.send("raylet", signal.SIGSTOP)
    assert driver.end(150) == (0, "")
    assert mask_files(driver.folder) == job.mask


@pytest.mark.soak
def test_an_embedded_ray_that_starts_too_slowly_is_started_again(job: Job, tmp_path: Path) -> None:
    """Its raylet stands still as soon as it is there, as on a machine that has no time for it."""
    environment, pipe = clean_environment(tmp_path / "home"), subprocess.PIPE
    process = subprocess.Popen(job.command(tmp_path / "run"), env=environment, stderr=pipe, text=True)
    deadline = time.monotonic() + 120
    while not (found := raylets_of(process.pid)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
    os.kill(found[0], signal.SIGSTOP)
    _, output = process.communicate(timeout=400)
    assert (process.returncode, output.strip()) == (0, "")
    assert mask_files(tmp_path / "run") == job.mask
    assert not psutil.pid_exists(found[0])


def raylets_of(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        commands = {child.pid: " ".join(child.cmdline()) for child in psutil.Process(pid).children()}
        return [each for each, command in commands.items() if kind_of(command) == "raylet"]
    return []


@pytest.mark.soak
def test_prefects_embedded_server_stands_still_and_the_run_is_complete(job: Job, driver: Driver) -> None:
    driver.send("Prefect's server", signal.SIGSTOP)
    code, output = driver.end(400)
    assert code == 0
    assert re.fullmatch("WARNING flows[^\n]+Prefect's server can't be reached[^\n]+", output), output
    assert mask_files(driver.folder) == job.mask


@pytest.mark.soak
def test_rays_log_monitor_is_not_missed(job: Job, driver: Driver) -> None:
    driver.kill("log monitor")
    assert driver.end(300) == (0, "")
    assert mask_files(driver.folder) == job.mask


@pytest.mark.slow
def test_its_folder_goes_with_a_ray_that_ends(cli: Cli, job: Job, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        own = Cli({**cli.environment, "TMPDIR": short})
        shutil.copytree(job.folder, tmp_path / "run")
        ended = own.run("rerun", tmp_path / "run", "--tile", "0,0", "--workers", 1)
        assert ended.code == 0, ended.err
        assert not [*Path(short).glob("overtile-*/ray/session_2*")]


NIGHT = ("--core", CORE, "--foreground", "none", "--workers", 1, "--settle", "0s")


@pytest.fixture
def night(job: Job, tmp_path: Path) -> Iterator[Driver]:
    """An archive's night with servers of its own."""
    (tmp_path / "in").mkdir()
    shutil.copy(job.image, tmp_path / "in" / "a.tif")
    options = (tmp_path / "in", "--out", tmp_path / "out", "--model", job.model, *NIGHT)
    run = tmp_path / "out" / "slides" / "a.tif"
    environment = clean_environment(tmp_path / "home")
    started = begun([str(OVERTILE), "archive", *map(str, options)], run, environment)
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.soak
def test_prefects_server_is_killed_in_a_night_which_is_complete(job: Job, night: Driver) -> None:
    night.kill("Prefect's server")
    code, output = night.end(300)
    assert code == 0
    assert re.fullmatch("WARNING flows[^\n]+Prefect's server can't be reached[^\n]+", output), output
    assert mask_files(night.folder) == job.mask


@pytest.mark.soak
def test_an_embedded_ray_dies_in_a_night_and_the_next_one_goes_on(cli: Cli, job: Job, night: Driver) -> None:
    night.kill("raylet")
    code, output = night.end(60)
    assert code == 1
    assert len([line for line in output.splitlines() if not line.startswith("WARNING flows.")]) == 1, output
    archive = night.folder.parents[1]
    options = (archive.parent / "in", "--out", archive, "--model", job.model, *NIGHT)
    again = cli.run("archive", *options, timeout=400)
    assert again.code == 0, again.err
    assert mask_files(night.folder) == job.mask


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["segment", "archive"])
def test_sigterm_twice_is_sigterm(kind: str, request: pytest.FixtureRequest) -> None:
    driver: Driver = request.getfixturevalue({"segment": "driver", "archive": "night"}[kind])
    for _ in range(2):
        driver.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    assert driver.end(60) == (143, "error: stopped by SIGTERM; the same command resumes")


@pytest.mark.soak
def test_an_external_server_that_is_killed_costs_nothing_either(job: Job, tmp_path: Path) -> None:
    home, port = tmp_path / "server", free_port()
    command = [str(OVERTILE.parent / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=clean_environment(home), stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_for_server(server, url, tmp_path / "server.log")
        folder = tmp_path / "run"
        driver = begun(job.command(folder), folder, clean_environment(tmp_path / "home", PREFECT_API_URL=url))
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    code, output = driver.end(300)
    assert code == 0
    assert re.fullmatch("WARNING flows[^\n]+Prefect's server can't be reached[^\n]+", output), output
    assert mask_files(folder) == job.mask


@pytest.mark.soak
def test_a_stopped_serve_says_so_on_one_line(job: Job, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(job.image, tmp_path / "in" / "a.tif")
    ended = cli.run("archive", tmp_path / "in", "--out", tmp_path / "out", "--model", job.model, *NIGHT, timeout=400)
    assert ended.code == 0, ended.err
    log = tmp_path / "serve.log"
    process = cli.start("serve", tmp_path / "out", "--cron", "0 1 29 2 *", log=log)
    deadline = time.monotonic() + 120
    while "pages:" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(3)  # until its clock runs, of which nothing tells
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "Traceback" not in log.read_text()
    assert "Warning" not in log.read_text()
    assert log.read_text().splitlines()[-1] == "stopped; the same command holds the nights again"
