"""The Slurm recipe under a real Slurm of one node: a night, a job queued again, the rerun of the morning after.

Needs root, `slurm-wlm` and `munge` as Debian has them; the daemons, their key and their sockets are the test's own.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli import clean_environment, free_port, write_tissue
from manifests import DEPLOY
from tiny import save_tiny

from tiling.archives.archive import Archive
from tiling.archives.slide_ledger import SlideState
from tiling.runs.run import Run

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "sinfo")
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: apt-get install slurm-wlm munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd starts jobs as their users, for which it has to be root"),
]

CORE = 64
SLIDES = {"0.tif": 1024, "1.tif": 640}
CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/node.log
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/node.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MpiDefault=none
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=short Nodes={host} MaxTime=1 State=UP
PartitionName=night Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Slurm of one node with two processors."""

    environment: dict[str, str]
    submitted_from: Path

    def ask(self, *command: str, **more: str) -> str:
        """What a command of Slurm's prints."""
        ended = subprocess.run(
            command,
            env=self.environment | more,
            cwd=self.submitted_from,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended.stdout.strip()

    def submit(self, *arguments: str | Path, **more: str) -> str:
        """The number of a job of the recipe; options of `sbatch` win over those in the script."""
        options = ("--parsable", "--partition=night", "--nodes=1", "--cpus-per-task=2", "--gpus-per-node=0", "--mem=3G")
        script = str(DEPLOY / "slurm" / "overtile.sbatch")
        return self.ask("sbatch", *options, script, *map(str, arguments), **more)

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.ask("scontrol", "show", "job", number)))

    def log(self, number: str) -> str:
        path = self.submitted_from / f"overtile-{number}.log"
        return path.read_text() if path.is_file() else ""

    def exit_status(self, number: str) -> int:
        """The exit status of a job, once it has ended."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self.wait(number, lambda: self.job(number)["JobState"] in ended)
        return int(self.job(number)["ExitCode"].partition(":")[0])

    def wait(self, number: str, reached: Callable[[], bool], seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                pytest.fail(f"job {number}: {self.job(number)}\n{self.log(number)[-3000:]}")
            time.sleep(0.3)


@contextmanager
def daemon(*command: str, log: Path, **environment: str) -> Generator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=file, stderr=file)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    sbin = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    with ExitStack() as stack:
        # munged wants a folder that nobody else may write to, all the way up but for a sticky one.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp")))
        folder.chmod(0o755)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(host=host, controller=free_port(), node=free_port(), folder=folder)
        (folder / "slurm.conf").write_text(text)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        conf = str(folder / "slurm.conf")
        files = [f"--{name}={folder}/munge.{end}" for name, end in (("pid-file", "pid"), ("log-file", "log"))]
        seed = f"--seed-file={folder}/seed"
        munged = ("munged", "--foreground", f"--key-file={key}", f"--socket={folder}/munge.sock", seed, *files)
        stack.enter_context(daemon(*munged, log=folder / "munged.out", **sbin))
        stack.enter_context(daemon("slurmctld", "-D", "-f", conf, log=folder / "controller.out", **sbin))
        stack.enter_context(daemon("slurmd", "-D", "-f", conf, log=folder / "node.out", **sbin))
        home = tmp_path_factory.mktemp("submitted")
        more = {
            "PATH": sbin["PATH"],
            "SLURM_CONF": conf,
            "OVERTILE_BIN": str(Path(sys.executable).parent),
            "OVERTILE_RAY_TEMP": str(folder / "ray"),
            "OVERTILE_RAY_PORT": str(free_port()),
        }
        cluster = Cluster(clean_environment(home / "prefect", **more), home)
        deadline = time.monotonic() + 60
        while (
            "idle"
            not in subprocess.run(
                ["sinfo", "--noheader", "--format=%T"],
                env=cluster.environment,
                capture_output=True,
                text=True,
                check=False,
            ).stdout.split()
        ):
            if time.monotonic() > deadline:
                pytest.fail((folder / "controller.log").read_text()[-2000:] + (folder / "node.log").read_text()[-2000:])
            time.sleep(0.3)
        yield cluster


@pytest.fixture(scope="module")
def options(cluster: Cluster) -> list[str | Path]:
    source = cluster.submitted_from / "slides"
    source.mkdir()
    for name, side in SLIDES.items():
        write_tissue(source / name, side, side)
    (source / "bad.tif").write_bytes(b"II*\0 and nothing else")
    model = save_tiny(cluster.submitted_from / "tiny")
    limits = ["--core", str(CORE), "--foreground", "none", "--settle", "0s"]
    return [source, "--model", model, *limits, "--out", cluster.submitted_from / "runs"]


def tiles(archive: Path) -> list[tuple[str, int]]:
    """What ledgers hold as done."""
    runs = [archive / "slides" / name for name in SLIDES if (archive / "slides" / name / "run.json").is_file()]
    return [(path.name, record.tile) for path in runs for record in Run.open(path).ledger.records()]


def test_a_job_is_signalled_and_queued_again_and_computes_no_tile_twice(
    cluster: Cluster, options: list[str | Path]
) -> None:
    archive = Path(options[-1])
    number = cluster.submit(*options)
    cluster.wait(number, lambda: len(tiles(archive)) >= 16)
    # What `--signal=B:TERM@120` sends before the time limit.
    cluster.ask("scancel", "--batch", "--signal=TERM", number)
    cluster.wait(number, lambda: int(cluster.job(number)["Restarts"]) == 1)
    # A job that is queued again waits for two minutes by default; an operator may say otherwise.
    cluster.wait(number, lambda: cluster.job(number)["JobState"] == "PENDING")
    cluster.ask("scontrol", "update", f"JobId={number}", "StartTime=now")
    # The broken slide was reported by the night that was stopped, whose exit status Slurm doesn't keep.
    assert cluster.exit_status(number) == 0, cluster.log(number)[-3000:]
    text = cluster.log(number)
    assert "queued again" in text
    assert "1 failed" in text
    assert "1 known to fail" in text
    done = tiles(archive)
    assert sorted(done) == [(name, at) for name, side in SLIDES.items() for at in range((side // CORE) ** 2)]
    states = {record.slide: record.state for record in Archive.open(archive).ledger}
    assert states == dict.fromkeys(SLIDES, SlideState.DONE) | {"bad.tif": SlideState.FAILED}


def test_the_next_night_has_nothing_to_do_and_a_tile_is_rerun_the_morning_after(
    cluster: Cluster, options: list[str | Path]
) -> None:
    archive = Path(options[-1])
    before = tiles(archive)
    assert cluster.exit_status(cluster.submit(*options)) == 0, "a failure that stood the night before fails no other"
    assert tiles(archive) == before
    shard = archive / "slides/0.tif/mask.ome.zarr/0/c/1/2"
    sound = shard.read_bytes()
    shard.write_bytes(b"rotten")
    number = cluster.submit(archive / "slides/0.tif", "--tile", "1,2", OVERTILE_COMMAND="rerun")
    assert cluster.exit_status(number) == 0, cluster.log(number)[-3000:]
    assert shard.read_bytes() == sound


def test_a_partition_that_is_not_there_and_a_job_without_slides_are_said(cluster: Cluster) -> None:
    refused = subprocess.run(
        ["sbatch", "--partition=day", "--nodes=1", "--gpus-per-node=0", str(DEPLOY / "slurm" / "overtile.sbatch"), "x"],
        env=cluster.environment,
        cwd=cluster.submitted_from,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "invalid partition" in refused.stderr
    number = cluster.submit()
    assert cluster.exit_status(number) == 2
    assert "nothing to segment" in cluster.log(number)
