"""The whole path of a run in one process that something happens to just before any one of its changes to files.

Python tells an audit hook of every file that is opened for writing, renamed, linked or removed, and of every folder
that is removed: so no write of any stage can be forgotten, whoever makes it. That a folder is made is no change here:
before it nothing is otherwise than after the change before, and two threads that need one folder try once or twice, as
it happens. As a script it forks one process per attempt, from a parent that has loaded everything and run nothing.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

Change = tuple[str, str]
"""An audit event and the path that it is about, relative to the folder."""

Moment = tuple[str, int]
"""Before the n-th change of a kind, from 0. Threads change the order of changes, never how many of a kind there are."""

Deed = Literal["kill", "tear", "fill"]
BALLAST = "ballast"
EXPORTS = ("statistics", "ome-tiff", "cog", "qupath", "geojson", "geopackage", "geoparquet", "qgis", "thumbnail")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
REMOVALS = {"os.remove", "os.rmdir"}


@dataclass(slots=True)
class Saboteur:
    """Counts the changes under a folder, and does its deed before one of them.

    Args:
        folder: changes elsewhere don't count.
        at: when to act; None only counts.
        deed: kill the process; leave what would be written torn, and kill; or fill the disk and let it try.
    """

    folder: Path
    at: Moment | None = None
    deed: Deed = "kill"
    changes: list[Change] = field(default_factory=list[Change])
    _counts: Counter[str] = field(default_factory=Counter[str])
    _turn: threading.RLock = field(default_factory=threading.RLock)  # tearing opens a file, in the same thread

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        path = _changed(event, arguments)
        if path is not None and path.is_relative_to(self.folder):
            with self._turn:
                self._count(event, path)

    def _count(self, event: str, path: Path) -> None:
        change = event, str(path.relative_to(self.folder))
        kind = kind_of(change)
        if self.at == (kind, self._counts[kind]):
            self.at = None  # what is torn is no further change
            if self.deed == "fill":
                fill_disk(self.folder.parent / BALLAST)
            else:
                if self.deed == "tear" and event == "open":
                    _tear(path)
                os.kill(os.getpid(), signal.SIGKILL)
        self.changes.append(change)
        self._counts[kind] += 1


def _changed(event: str, arguments: tuple[Any, ...]) -> Path | None:
    """The path that an audit event is about to change; of a renaming or a link, the new one."""
    if event == "open":
        path, _, flags = arguments
        return _absolute(path) if isinstance(path, str | os.PathLike) and flags & WRITING else None
    if event in {"os.rename", "os.link"}:
        return _absolute(arguments[1], arguments[3])
    return _absolute(arguments[0], arguments[1]) if event in REMOVALS else None


def _absolute(path: str | os.PathLike[str], descriptor: int = -1) -> Path:
    folder = os.readlink(f"/proc/self/fd/{descriptor}") if descriptor >= 0 else os.getcwd()  # noqa: PTH115, PTH109
    return Path(folder, path)


def _tear(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, b"torn")
    os.fsync(descriptor)


def fill_disk(ballast: Path) -> None:
    """Take all the room that is left, to the last byte."""
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            while _wrote(file, size):
                pass


def _wrote(file: BinaryIO, size: int) -> bool:
    try:
        return file.write(bytes(size)) == size
    except OSError:
        return False


def kind_of(change: Change) -> str:
    """A change without its tile, its random name and its number."""
    event, path = change
    return f"{event} {re.sub('[0-9]+', '#', re.sub('[0-9a-f]{32}', '*', path))}"


def walk(image: Path, folder: Path, model: Path, foreground: str, formats: str) -> None:
    """What the flow does, stage by stage and tile by tile, without Ray and Prefect around it."""
    from flows.config.run import SegmentConfig
    from flows.run.prepare import prepare
    from flows.run.steps import export, finish, record_result, remaining, stitch
    from flows.worker.staging_worker import StagingWorker
    from flows.worker.tile_worker import TileWorker
    from flows.worker.tuning import tune
    from tiling.storage.place import RunLock

    config = SegmentConfig(image=image, out=folder, model=str(model), core=128, foreground=foreground, export=formats)
    with RunLock(folder):
        run = prepare(config, 1, partial(tune, device="cpu"))
        todo = remaining(run)
        if todo:
            run.create_staged()
            stager, worker, mask = StagingWorker(), TileWorker(), run.open_mask()
            for index in todo:
                (staged,) = stager.stage(run.path, [index])
                assert staged.reason is None, staged.reason
                record_result(run, mask, worker.process(run.path, index, staged=True), 1)
            run.ledger.announce("inferred", {"workers": 1, "stagers": 1, "seconds": 1.0})
        stitch(run)
        export(run, formats)
        finish(run, keep_staged=False)


class Interrupter:
    """Runs `walk` in forked processes, each killed where it is asked."""

    def __init__(self, image: Path, model: Path, foreground: str, formats: str = "none") -> None:
        self._job = [str(image), str(model), foreground, formats]
        self._parent = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_quiet()
        )

    def __enter__(self) -> Interrupter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parent.kill()
        self._parent.wait()

    def run(self, folder: Path, at: Moment | None = None, deed: Deed = "kill") -> list[Change]:
        """Go through with it; with `at`, up to the deed. Returns the changes, or the error's kind and message."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps([*self._job, str(folder), at, deed]) + "\n")
        self._parent.stdin.flush()
        status, changes = json.loads(self._parent.stdout.readline())
        assert status == (0 if at is None or deed == "fill" else -signal.SIGKILL), f"ended with {status} at {at}"
        return [(event, path) for event, path in changes]


def _quiet() -> dict[str, str]:
    """One thread, and no clock in a GeoPackage, whose bytes are compared."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OGR_CURRENT_DATE": "2026-01-01T00:00:00.000Z"}


def _serve() -> None:
    """Load everything once; what tracing a network loads too."""
    from tiling.export.formats import FORMATS
    from tiling.runs import ledger
    from unet_core.bounds import footprint
    from unet_core.bundles.bundle import load_bundle

    for module in (
        "flows.segment",
        "flows.worker.tile_worker",
        *(f"tiling.export.{FORMATS[name].module}" for name in EXPORTS),
    ):
        import_module(module)
    footprint(load_bundle("nuclei-small").module, 3)
    ledger.FLUSH_SECONDS = 0.0  # every tile in a segment of its own: as many changes in every run
    for line in sys.stdin:
        image, model, foreground, formats, folder, at, deed = json.loads(line)
        saboteur = Saboteur(Path(folder), at and (at[0], at[1]), deed)
        job = partial(walk, Path(image), Path(folder), Path(model), foreground, formats)
        status, changes = _forked(partial(_watched, saboteur, job))
        sys.stdout.write(json.dumps([status, changes]) + "\n")
        sys.stdout.flush()


def _watched(saboteur: Saboteur, job: Callable[[], None]) -> list[Change]:
    from tiling.errors import TilingError

    sys.addaudithook(saboteur)
    try:
        job()
    except (TilingError, OSError) as error:
        if saboteur.deed != "fill":
            raise
        return [(type(error).__name__, str(error))]
    return saboteur.changes


def _forked(work: Callable[[], list[Change]]) -> tuple[int, list[Change]]:
    """What a forked process returned, and how it ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        status = 1
        try:
            result = json.dumps(work()).encode()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(result)
            status = 0
        except BaseException:  # noqa: BLE001 (reported, and never returned into the parent's code)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(output or b"[]")


if __name__ == "__main__":
    _serve()
