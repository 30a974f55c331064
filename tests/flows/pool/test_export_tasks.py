"""Exports as Ray tasks: the files that the driver itself writes, whoever dies meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
from dying_tasks import DyingElsewhere, DyingOnce, dies, waits
from finished import finished_run, numbered
from tiny import write_noise

from flows.errors import PoolError
from flows.pool.actors import StagingActor
from flows.pool.staging_actors import Stagers
from flows.pool.tasks import as_they_end
from flows.run.pictures import drawing, seen
from flows.run.steps import export
from tiling.errors import DiskError
from tiling.export.export_run import is_shown
from tiling.export.formats import FORMATS
from tiling.export.verification import OVERLAY, last_drawn
from tiling.runs.run import Run
from tiling.storage.disk import is_partial

FORMATS_OF_A_SLIDE = ("statistics", "ome-tiff", "qupath", "table", "geoparquet", "thumbnail")


def in_tasks(work: Callable[[Any], Any], items: Iterable[Any], at_once: int = 2) -> Iterator[Any]:
    return as_they_end(work, items, room=threading.Semaphore(at_once), on_wait=lambda: None)


def test_tasks_write_what_the_driver_writes_though_one_dies_halfway(faults: Path, tmp_path: Path) -> None:
    image = write_noise(tmp_path / "image.tif", 300, 280)
    here, there = (finished_run(image, tmp_path / name) for name in ("here", "there"))
    for run in (here, there):
        numbered(run)
    export(here, ",".join(FORMATS_OF_A_SLIDE))
    left = there.path / "exports" / f".mask.ome.{'0' * 32}.partial.tif"
    assert isinstance(left, Path)
    left.parent.mkdir()
    assert is_partial(left.name)

    def dying(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return in_tasks(DyingOnce(work, ("ome-tiff",), left), items)

    export(there, ",".join(FORMATS_OF_A_SLIDE), tasks=dying)
    assert files_of(there) == files_of(here)
    state = there.ledger.fold(held=True)
    assert all(is_shown(there, state, name) for name in FORMATS_OF_A_SLIDE)


def test_an_idle_stager_draws_what_the_driver_draws_and_the_driver_where_it_dies(faults: Path, tmp_path: Path) -> None:
    image, stagers = write_noise(tmp_path / "image.tif", 300, 280), Stagers(StagingActor, lambda: 1, dict)
    assert not stagers.is_idle, "none has been started"
    stagers.grow()
    stagers_work = partial(stagers.work, on_wait=lambda: None)

    def dying(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return stagers_work(DyingElsewhere(work, os.getpid()), items)

    found: dict[str, dict[str, bytes]] = {}
    ways = (("here", None), ("there", stagers_work), ("died", dying), ("seen", stagers_work), ("blind", stagers_work))
    for name, tasks in ways:
        run = finished_run(image, tmp_path / name)
        state = run.ledger.fold(held=True)
        assert stagers.is_idle
        looked_at = {"seen": str(run.path), "blind": str(tmp_path / "nowhere")}.get(name)
        view = None if looked_at is None else stagers.begin(seen, looked_at, lambda: None)
        assert view is None or (view() is None) == (name == "blind")
        with drawing(run, state, tasks, view) as pictures:
            export(run, "statistics", state, pictures=pictures)
        assert last_drawn(run.ledger.fold(), OVERLAY) is not None
        found[name] = files_of(run)
    assert len(stagers) == 1
    stagers.clear()
    for files in found.values():
        assert files == found["here"]


def files_of(run: Run) -> dict[str, bytes]:
    """All that is drawn and exported, but for the report, which says how long it took."""
    assert isinstance(run.path, Path)
    folders = (run.path / "exports", run.path / "close-ups")
    files = [run.path / "overlay.png", *(file for folder in folders for file in sorted(folder.iterdir()))]
    return {str(file.relative_to(run.path)): file.read_bytes() for file in files}


def test_a_format_that_fails_in_a_task_is_reported_as_in_the_driver_and_the_others_are_written(
    faults: Path, tmp_path: Path
) -> None:
    image, reports = write_noise(tmp_path / "image.tif", 300, 280), list[str]()
    for name, tasks in (("here", None), ("task", in_tasks)):
        run = finished_run(image, tmp_path / name)
        (tmp_path / name / "exports" / "qupath.geojson" / "in the way").mkdir(parents=True)
        with pytest.raises(DiskError) as refused:
            export(run, "statistics,qupath,ome-tiff", tasks=tasks)
        reports.append(str(refused.value).replace(f"/{name}/", "/run/"))
        state = run.ledger.fold(held=True)
        assert [each for each in FORMATS if is_shown(run, state, each)] == ["statistics", "ome-tiff"]
        assert last_drawn(state, OVERLAY) is not None, "pictures are recorded all the same"
    assert reports[0] == reports[1]


def test_what_a_task_raises_keeps_no_other_from_its_result(faults: Path) -> None:
    ending = in_tasks(partial(divmod, 6), [0, 1, 2])
    assert sorted(islice(ending, 2)) == [(3, 0), (6, 0)]
    with pytest.raises(ZeroDivisionError):
        next(ending)
    alone = as_they_end(dies, [1], room=threading.Semaphore(1), on_wait=lambda: None, retries=0)
    with pytest.raises(PoolError, match=r"^workers died again and again \(.*\); the same command resumes$"):
        next(alone)


def test_whoever_stops_waiting_ends_the_tasks(faults: Path, tmp_path: Path) -> None:
    room = threading.Semaphore(2)

    def stop_when_both_work() -> None:
        if len([*tmp_path.iterdir()]) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(as_they_end(waits, [tmp_path] * 3, room=room, on_wait=stop_when_both_work))
    workers = [int(file.name) for file in tmp_path.iterdir()]
    ends = time.monotonic() + 20
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, workers))
    assert all(room.acquire(blocking=False) for _ in range(2))
