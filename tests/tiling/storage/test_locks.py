"""The lock of a run: nothing is emptied through it, and no second driver gets in, whatever is done to its files."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from accounts import NOBODY
from cli import Cli
from finished import finished_run
from tiny import save_tiny, write_noise

from flows.viewer.reruns import RerunRequest, Reruns
from tiling.errors import DiskError, PlaceError, RunError
from tiling.export.export_run import export_run
from tiling.runs.ledger import Ledger, TileRecord, TileState
from tiling.storage.run_lock import RunLock

HOLD = """
import sys
import time
from pathlib import Path
from tiling.errors import TilingError
from tiling.storage.run_lock import RunLock
try:
    with RunLock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except TilingError as error:
    print(error, flush=True)
"""


@contextmanager
def other_driver(folder: Path, *before: str) -> Generator[str]:
    """What a driver in a process of its own says when it asks for a run, which it holds if it can."""
    command = [*before, sys.executable, "-c", HOLD, str(folder)]
    driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        yield driver.stdout.readline().strip()
    finally:
        driver.communicate(timeout=30)


def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "run").mkdir()
    lock = tmp_path / "run" / "driver.lock"
    for make in (lambda: lock.symlink_to(tmp_path / "thesis.txt"), lambda: lock.hardlink_to(tmp_path / "thesis.txt")):
        make()
        with pytest.raises(PlaceError, match=r"driver\.lock is no lock of a run .*; remove it"), RunLock(lock.parent):
            pass
        assert (tmp_path / "thesis.txt").read_text() == "years of work"
        lock.unlink()
    lock.symlink_to(tmp_path / "nowhere")
    with pytest.raises(PlaceError, match="is no lock of a run"), RunLock(lock.parent):
        pass
    assert not (tmp_path / "nowhere").exists(), "nothing is made through a link either"


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_lock_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    lock = tmp_path / "driver.lock"
    os.mkfifo(lock) if kind == "pipe" else lock.mkdir()
    with pytest.raises(PlaceError, match="is no lock of a run"), RunLock(tmp_path):
        pass


def test_a_run_folder_behind_a_link_is_one_run(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with RunLock(tmp_path / "run"), other_driver(tmp_path / "disk") as said:
        assert f"process {os.getpid()} of" in said


def test_a_lock_removed_while_it_is_held_lets_nobody_in(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:
        (tmp_path / "driver.lock").unlink()
        with other_driver(tmp_path) as said:
            assert "another driver (an unnamed process)" in said
        assert lock.is_held
    with other_driver(tmp_path) as said:
        assert said == "held"


def test_where_folders_cannot_be_locked_the_holder_of_a_removed_lock_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, which locks files alone: the holder writes nothing more, whether or not another has begun."""
    real = fcntl.flock

    def as_on_nfs(descriptor: int, operation: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    ledger = Ledger(tmp_path / "ledger", 2)
    with RunLock(tmp_path):
        with pytest.raises(RunError, match="another driver"), RunLock(tmp_path):
            pass
        ledger.append(TileRecord(0, TileState.DONE))
        # An NFS client gives an open file that is removed another name.
        (tmp_path / "driver.lock").rename(tmp_path / ".nfs000000000000000100000001")
        with other_driver(tmp_path) as said:
            assert said == "held"
            with pytest.raises(RunError, match=r"the lock of run .* is lost .*; .* resumes"):
                store(ledger, TileRecord(1, TileState.DONE))
    assert Ledger(tmp_path / "ledger", 2).fold().count(TileState.DONE) == 1


def store(ledger: Ledger, record: TileRecord) -> None:
    """Append a record, which stores it at once where the last was stored a while ago, and store what isn't yet."""
    ledger.append(record)
    ledger.flush()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(PlaceError, match=r"without locks \(No locks available\).*; mount it"), RunLock(tmp_path):
        pass


def test_a_run_removed_or_replaced_under_its_driver_gets_nothing_more(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ledger = Ledger(run / "ledger", 2)
    with RunLock(run):
        run.rename(tmp_path / "moved")
        with pytest.raises(RunError, match="is lost"):
            ledger.append(TileRecord(0, TileState.DONE))
        assert not run.exists()
        with other_driver(run) as said:
            assert said == "held", "a new run at the old name is another's"
            with pytest.raises(RunError, match="is lost"):
                ledger.flush()
        assert not (run / "ledger").exists()


def test_two_hosts_are_told_of_each_other(tmp_path: Path) -> None:
    other = ("unshare", "--uts", "sh", "-c", 'hostname other-host; exec "$@"', "sh")
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode:
        pytest.skip("another host name needs the right to unshare --uts")
    with other_driver(tmp_path, *other) as said:
        assert said == "held"
        with pytest.raises(RunError, match=r"process \d+ of other-host, since 20"), RunLock(tmp_path):
            pass
    with RunLock(tmp_path), other_driver(tmp_path, *other) as said:
        assert "is being worked on by another driver" in said


def test_another_user_cannot_lead_a_lock_away(open_folder: Path) -> None:
    """A folder that a group shares: another account puts a link there before the run begins."""
    run, mine = open_folder / "run", open_folder / "mine"
    run.mkdir()
    run.chmod(0o777)
    mine.write_text("mine")
    subprocess.run(["ln", "-s", str(mine), str(run / "driver.lock")], user=NOBODY, check=True)
    with pytest.raises(PlaceError, match="is no lock of a run"), RunLock(run):
        pass
    assert mine.read_text() == "mine"


def test_a_group_that_shares_runs_shares_their_locks(open_folder: Path) -> None:
    """Of two accounts with a group in common and a umask of 002 the second can lock what the first made."""
    run = open_folder / "run"
    run.mkdir()
    os.chown(run, 0, 65533)
    run.chmod(0o2770)
    take = "import os, sys; descriptor = os.open(sys.argv[1], os.O_RDWR); print('ours')"
    before = os.umask(0o002)
    try:
        with RunLock(run):
            pass
    finally:
        os.umask(before)
    command = ["python3", "-c", take, str(run / "driver.lock")]
    asked = subprocess.run(command, user=NOBODY, group=65533, extra_groups=[], capture_output=True, check=False)
    assert asked.stdout == b"ours\n", asked.stderr


def test_two_drivers_of_one_ledger_never_replace_each_others_segments(tmp_path: Path) -> None:
    """Where locks lie, as on NFS without them, the names of segments still tell."""
    first, second = Ledger(tmp_path, 4), Ledger(tmp_path, 4)
    first.append(TileRecord(0, TileState.DONE))
    second.append(TileRecord(1, TileState.DONE))
    with pytest.raises(RunError, match="written by another driver"):
        first.announce("stitched", {})
    assert Ledger(tmp_path, 4).fold().count(TileState.DONE) == 2


def test_a_driver_goes_past_segments_that_show_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS shows what another host wrote up to a minute later in listings; the name itself is taken at once."""
    before = Ledger(tmp_path, 4)
    before.append(TileRecord(0, TileState.DONE))
    later = Ledger(tmp_path, 4)
    monkeypatch.setattr(os, "listdir", lambda _: [])
    later.append(TileRecord(1, TileState.DONE))
    monkeypatch.undo()
    assert Ledger(tmp_path, 4).fold().count(TileState.DONE) == 2


def test_a_segment_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    ledger = Ledger(tmp_path, 4)
    ledger.append(TileRecord(0, TileState.DONE))
    ledger.announce("stitched", {})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["00000001.jsonl", "00000002.jsonl"]


def test_a_run_whose_folder_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"run is no longer there: somebody removed or moved it"):
        Ledger(tmp_path / "run" / "ledger", 1).append(TileRecord(0, TileState.DONE))


def test_a_run_that_is_removed_while_it_is_exported_is_told_as_that(tmp_path: Path) -> None:
    image = write_noise(tmp_path / "noise.tif", 128, 128)
    run = finished_run(image, tmp_path / "run", np.ones((128, 128), np.uint8))

    def removed(*_: object) -> None:
        (tmp_path / "run").rename(tmp_path / "trash")
        raise FileNotFoundError("a file of an export")

    with run.open_source() as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tiling.export.write_formats.expect_readable", removed)
        with pytest.raises(DiskError, match="run is no longer there: somebody removed or moved it"):
            export_run(run, source, "statistics")
    assert not (tmp_path / "run").exists()


@pytest.mark.soak
@pytest.mark.usefixtures("reporting")
def test_a_run_that_is_removed_while_it_works_ends_on_one_line_and_stays_removed(cli: Cli, tmp_path: Path) -> None:
    """Before, the viewer's button is refused beside the running command."""
    image, model, run = write_noise(tmp_path / "noise.tif", 2048, 2048), save_tiny(tmp_path / "tiny"), tmp_path / "run"
    options = ("--model", model, "--out", run, "--core", 32, "--foreground", "none", "--workers", 1)
    driver = cli.start("segment", image, *options, log=tmp_path / "log")
    try:
        deadline = time.monotonic() + 250
        while not any(True for _ in run.glob("ledger/0000001*.jsonl")):
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        driver.send_signal(signal.SIGSTOP)  # or it may have ended by the time that the button's command looks
        job = Reruns().start(run, RerunRequest(((0, 0),)))
        job.process.wait(200)
        assert "is being worked on by another driver" in job.facts()["message"]
        assert job.process.returncode == 2
        driver.send_signal(signal.SIGCONT)
        assert driver.poll() is None
        run.rename(tmp_path / "trash")
        assert driver.wait(120) in {1, 2}
    finally:
        driver.kill()
        driver.wait()
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said, said
    reasons = ("no longer there", "is lost", "was removed or moved")
    assert any(line.startswith("error: ") and any(each in line for each in reasons) for line in lines(said)), said
    assert not run.exists(), sorted(str(each) for each in run.rglob("*"))[:9]


def lines(said: str) -> list[str]:
    return [line.strip() for line in said.splitlines()]
