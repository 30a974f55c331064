"""The Slurm recipe under a real Slurm of one node: a night by the clock, a job queued again, the morning after.

Needs root, `slurm-wlm` and `munge` as Debian has them; the daemons, their key and their sockets are the test's own.
With `slurmdbd` and `mariadb-server` too, jobs are accounted. `scrontab` is in none of Debian's packages: it is built of
Slurm's source (its configure, then src/scrontab against libslurmfull).
"""

from __future__ import annotations

import os
import re
import shlex
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
DATABASE = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr")
PATH = f"{os.environ['PATH']}:/usr/sbin"
MISSING = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
NO_ACCOUNTS = [name for name in DATABASE if shutil.which(name, path=PATH) is None]
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: apt-get install slurm-wlm munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd starts jobs as their users, for which it has to be root"),
]

CORE = 64
SCRIPT = DEPLOY / "slurm" / "overtile.sbatch"
OPTIONS = ("--parsable", "--partition=night", "--nodes=1", "--cpus-per-task=2", "--gpus-per-node=0", "--mem=3G")
"""Options of `sbatch`, which win over those in the script."""
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
ScronParameters=enable
ReturnToService=2
MpiDefault=none
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=short Nodes={host} MaxTime=1 State=UP
PartitionName=night Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
ACCOUNTS = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.sock
AccountingStorageEnforce=associations
"""
DATABASE_CONFIGURATION = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost=localhost
DbdPort={port}
SlurmUser=root
LogFile={folder}/database.log
PidFile={folder}/database.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage}
StorageUser=root
StorageLoc=accounts
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
        """The number of a job of the recipe."""
        return self.ask("sbatch", *OPTIONS, str(SCRIPT), *map(str, arguments), **more)

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


def settle(reached: Callable[[], bool], *logs: Path, seconds: float = 60) -> None:
    """Wait for a daemon."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            pytest.fail("\n".join(log.read_text()[-2000:] for log in logs if log.is_file()))
        time.sleep(0.3)


@contextmanager
def accounting(folder: Path, environment: dict[str, str]) -> Generator[None]:
    """Slurm's database with one account, `lab`, which is root's."""
    port, storage = (int(re.findall(r"Port=(\d+)", (folder / "slurmdbd.conf").read_text())[at]) for at in (0, 1))
    data, plain = folder / "mariadb", ("--no-defaults", "--user=root")
    subprocess.run(
        ["mariadb-install-db", *plain, f"--datadir={data}"], check=True, capture_output=True, env=environment
    )
    where = (f"--datadir={data}", f"--socket={folder}/mariadb.sock", "--bind-address=127.0.0.1", f"--port={storage}")
    serve = ("mariadbd", *plain, *where, "--skip-grant-tables", "--innodb-buffer-pool-size=64M")
    with daemon(*serve, log=folder / "mariadb.out", **environment):
        settle(lambda: answers(storage), folder / "mariadb.out")
        with daemon("slurmdbd", "-D", log=folder / "database.out", **environment):
            settle(lambda: answers(port), folder / "database.log", folder / "database.out")
            for what in (("cluster", "one"), ("account", "lab"), ("user", "root", "account=lab")):
                added = ["sacctmgr", "--immediate", "add", *what]
                told = subprocess.run(added, check=False, capture_output=True, text=True, env=environment, timeout=60)
                assert told.returncode == 0, told.stdout + told.stderr + (folder / "database.log").read_text()[-2000:]
            yield


def answers(port: int) -> bool:
    with socket.socket() as asked:
        asked.settimeout(1)
        return asked.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    sbin = {"PATH": PATH}
    with ExitStack() as stack:
        # munged wants a folder that nobody else may write to, all the way up but for a sticky one.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp")))
        folder.chmod(0o755)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(host=host, controller=free_port(), node=free_port(), folder=folder)
        port, storage = free_port(), free_port()
        text += "" if NO_ACCOUNTS else ACCOUNTS.format(folder=folder, port=port)
        (folder / "slurm.conf").write_text(text)
        (folder / "slurmdbd.conf").write_text(DATABASE_CONFIGURATION.format(folder=folder, port=port, storage=storage))
        (folder / "slurmdbd.conf").chmod(0o600)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        conf = str(folder / "slurm.conf")
        files = [f"--{name}={folder}/munge.{end}" for name, end in (("pid-file", "pid"), ("log-file", "log"))]
        seed = f"--seed-file={folder}/seed"
        munged = ("munged", "--foreground", f"--key-file={key}", f"--socket={folder}/munge.sock", seed, *files)
        stack.enter_context(daemon(*munged, log=folder / "munged.out", **sbin))
        if not NO_ACCOUNTS:
            settle((folder / "munge.sock").exists, folder / "munged.out")
            stack.enter_context(accounting(folder, clean_environment(folder, PATH=PATH, SLURM_CONF=conf)))
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

        def is_up() -> bool:
            asked = ["sinfo", "--noheader", "--format=%T"]
            ended = subprocess.run(asked, env=cluster.environment, capture_output=True, text=True, check=False)
            return "idle" in ended.stdout.split()

        settle(is_up, folder / "controller.log", folder / "node.log")
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


@pytest.mark.skipif(bool(NO_ACCOUNTS), reason=f"no {', '.join(NO_ACCOUNTS)}: apt-get install slurmdbd mariadb-server")
def test_a_job_runs_on_the_account_that_it_is_given_and_on_no_unknown_one(cluster: Cluster) -> None:
    number = cluster.submit(SBATCH_ACCOUNT="lab")
    assert cluster.exit_status(number) == 2
    assert cluster.job(number)["Account"] == "lab"
    asked = ("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={number}", "--format=account,exitcode")
    cluster.wait(number, lambda: cluster.ask(*asked) == "lab|2:0", 60)
    command = ["sbatch", *OPTIONS, "--account=nobody", str(SCRIPT), "x"]
    refused = subprocess.run(
        command, env=cluster.environment, cwd=cluster.submitted_from, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "Invalid account" in refused.stderr


@pytest.mark.skipif(shutil.which("scrontab", path=PATH) is None, reason="no scrontab: it is built of Slurm's source")
def test_nights_begin_by_scrontab_and_one_that_is_due_while_another_runs_waits(
    cluster: Cluster, options: list[str | Path]
) -> None:
    archive, log = cluster.submitted_from / "by the clock", cluster.submitted_from / "submitted"
    environment = " ".join(
        f"{name}={shlex.quote(cluster.environment[name])}"
        for name in ("PATH", "SLURM_CONF", "OVERTILE_BIN", "OVERTILE_RAY_TEMP", "OVERTILE_RAY_PORT", "PREFECT_HOME")
    )
    night = shlex.join(["sbatch", *OPTIONS, "--dependency=singleton", str(SCRIPT), *map(str, options[:-2])])
    entry = f"cd {shlex.quote(str(cluster.submitted_from))} && {environment} {night} --out {shlex.quote(str(archive))}"
    table = cluster.submitted_from / "table"
    table.write_text(f"#SCRON --partition=short --time=1 --mem=50M\n* * * * * {entry} >> {shlex.quote(str(log))}\n")
    cluster.ask("scrontab", str(table))
    try:
        assert entry in cluster.ask("scrontab", "-l")
        settle(lambda: log.is_file() and len(log.read_text().split()) >= 2, seconds=240)
    finally:
        cluster.ask("scrontab", "-r")
    first, second, *later = log.read_text().split()
    for number in later:
        cluster.ask("scancel", number)
    assert cluster.exit_status(first) == 3, cluster.log(first)[-3000:]
    assert cluster.exit_status(second) == 0, cluster.log(second)[-3000:]
    assert "1 known to fail" in cluster.log(second)
    states = {record.slide: record.state for record in Archive.open(archive).ledger}
    assert states == dict.fromkeys(SLIDES, SlideState.DONE) | {"bad.tif": SlideState.FAILED}
