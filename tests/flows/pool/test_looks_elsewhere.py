"""Looks for foreground on staging actors and in tasks: the driver's own answer, whoever dies meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dying_tasks import DyingElsewhere, DyingOnce, waits
from marked_slide import SHAPE, write_marked
from tiny import save_tiny

from flows.config.run import SegmentConfig
from flows.pool.actors import StagingActor
from flows.pool.staging_actors import Stagers
from flows.pool.tasks import as_they_end
from flows.run.prepare import prepared
from flows.worker.tuning import Tuning
from tiling.geometry import Box
from tiling.runs.ledger import PLANNED
from tiling.selection import coarse_data, ink
from tiling.storage.task_map import TaskMap


@pytest.fixture(scope="module")
def stagers(faults: Path) -> Iterator[Stagers]:
    found = Stagers(StagingActor, lambda: 2, dict)
    found.grow()
    yield found
    found.clear()


def wrapped(tasks: Callable[..., Iterator[Any]], dying: Callable[[Callable[[Any], Any]], Any]) -> TaskMap:
    def with_dying(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return tasks(dying(work), items)

    return with_dying


def test_stagers_and_tasks_find_what_the_driver_finds_though_they_die(
    stagers: Stagers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (coarse_data, ink):
        monkeypatch.setattr(module, "PART_PIXELS", 1)
        monkeypatch.setattr(module, "LEAST_PIXELS", 0)
    image, model, asked_for = write_marked(tmp_path / "slide.tif"), save_tiny(tmp_path / "tiny"), list[int]()
    on_stagers = partial(stagers.work, on_wait=lambda: None)
    as_tasks = partial(as_they_end, room=threading.Semaphore(2), on_wait=lambda: None, retries=0)
    dying = partial(DyingElsewhere, here=os.getpid())
    once = partial(DyingOnce, of=Box(0, 0, 1024, SHAPE[1]), left=tmp_path / "died")
    ways: dict[str, TaskMap | None] = {
        "driver": None,
        "stagers": on_stagers,
        "one stager dies": wrapped(on_stagers, once),
        "tasks": as_tasks,
        "tasks die": wrapped(as_tasks, dying),
    }

    def tasks(pixels: int, way: TaskMap | None) -> TaskMap | None:
        asked_for.append(pixels)
        return way

    found: dict[str, tuple[Any, ...]] = {}
    for name, way in ways.items():
        config = SegmentConfig(image=image, model=str(model), out=tmp_path / name, core=512, as_is=True)
        caplog.clear()
        run = prepared(config, 1, lambda _: Tuning("float32", 512, {}), tasks=partial(tasks, way=way)).run
        planned = run.ledger.fold().last_event(PLANNED)
        assert planned is not None
        assert run.squares is not None
        facts = {
            key: value for key, value in planned.facts.items() if key in ("skipped", "foreground", "foreground_share")
        }
        found[name] = run.squares.kept.tolist(), facts, (name == "tasks die") == ("by the driver" in caplog.text)
    assert asked_for == [SHAPE[0] * SHAPE[1]] * len(ways)
    assert (tmp_path / "died").exists()
    for name, each in found.items():
        assert each == found["driver"], name
    assert not np.all(found["driver"][0])
    assert stagers.is_idle
    assert len(stagers) == 2


def test_whoever_stops_waiting_for_stagers_leaves_them_idle(faults: Path, tmp_path: Path) -> None:
    stagers = Stagers(StagingActor, lambda: 2, dict)
    stagers.grow()

    def stop_when_both_work() -> None:
        if len([*tmp_path.iterdir()]) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(stagers.work(waits, [tmp_path] * 3, stop_when_both_work))
    assert stagers.is_idle
    stagers.clear()
    assert [*stagers.work(divmod_by_three, [7, 8], lambda: None)] == [(2, 1), (2, 2)], "nobody is there any more"


def divmod_by_three(number: int) -> tuple[int, int]:
    return divmod(number, 3)
