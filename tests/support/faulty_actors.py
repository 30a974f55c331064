"""Tile actors that fail for real at chosen moments: the real worker, in a real process that is really killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray

from flows.worker.result import TileResult
from flows.worker.staging_worker import StagingWorker
from flows.worker.tile_worker import TileWorker
from tiling.plan import Tile, TilePlan
from tiling.source import ImageSource
from tiling.storage.place import Place, place_of

FAULTS = "OVERTILE_TEST_FAULTS"
"""Names a folder; a file `MOMENT-TILE` in it holds how often that moment of that tile is still to fail."""


def plan_fault(folder: Path, moment: str, tile: int, times: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{moment}-{tile}").write_text(str(times))


def is_due(moment: str, tile: int) -> bool:
    file = Path(os.environ[FAULTS]) / f"{moment}-{tile}"
    left = int(file.read_text()) if file.exists() else 0
    if left:
        file.write_text(str(left - 1))
    return left > 0


def die_if_due(moment: str, tile: int) -> None:
    if is_due(moment, tile):
        os.kill(os.getpid(), signal.SIGKILL)


class FaultyWorker(TileWorker):
    """Walks tiles as the real worker does, and is killed before, during or after a shard's write."""

    def process(self, run_path: Place, index: int, *, staged: bool) -> TileResult:
        die_if_due("before", index)
        while is_due("hang", index):
            time.sleep(3600)
        self._fail_while_writing(run_path, index, staged)
        result = super().process(run_path, index, staged=staged)
        die_if_due("after", index)
        return result

    def _fail_while_writing(self, run_path: Place, index: int, staged: bool) -> None:
        """Die when the shard's bytes are on disk under another name, and not yet under their own."""
        bench = self._open(run_path, staged)
        tile = bench.run.plan.tile(index)
        ending = f"mask.ome.zarr/0/c/{tile.row}/{tile.col}"
        replace = Path.replace

        def die_instead(path: Path, target: Path) -> Path:
            if str(target).endswith(ending):
                assert path.stat().st_size > 0
                die_if_due("during", index)
            return replace(path, target)

        Path.replace = die_instead  # type: ignore[method-assign]


@ray.remote
class FaultyActor:
    """The tile actor around a faulty worker."""

    def __init__(self, device: str) -> None:
        self._worker = FaultyWorker(device)

    def is_ready(self) -> bool:
        return True

    def process(self, run_path: str, index: int, staged: bool) -> TileResult:
        return self._worker.process(Path(run_path), index, staged=staged)


@ray.remote
class SeveralActor:
    """An actor that computes nothing, is killed by one tile and raises at another; `worker` is its call's tiles."""

    DEADLY, BROKEN = 57, 83

    def __init__(self, device: str) -> None:
        del device

    def is_ready(self) -> bool:
        return True

    def process(self, run_path: str, index: int, staged: bool) -> TileResult:
        return self.process_several(run_path, [index], staged)[0]

    def process_several(self, run_path: str, indices: list[int], staged: bool) -> list[TileResult]:
        del run_path, staged
        results = list[TileResult]()
        for index in indices:
            if index == self.DEADLY:
                os.kill(os.getpid(), signal.SIGKILL)
            if index == self.BROKEN and not results:
                raise RuntimeError(f"tile {index} is broken")
            if index == self.BROKEN:
                break
            results.append(TileResult(index, "00" * 16, 1, {"compute": 0.0}, worker=str(len(indices))))
        return results


@ray.remote
class FaultyStager:
    """The real staging, in a process that is killed when it comes to chosen tiles."""

    def __init__(self) -> None:
        self._worker = StagingWorker()

    def stage(self, run_path: str, indices: list[int]) -> list[TileResult]:
        for index in indices:
            die_if_due("stage", index)
        return self._worker.stage(place_of(run_path), indices)


def change_when_read(worker: object, moment: str) -> None:
    """Run the script `MOMENT-TILE.py` of the folder just after a tile's pixels are read, before they are looked after.

    `moment` with `before` runs it just before.
    """
    read = worker.load_tile  # type: ignore[attr-defined]

    def load_tile(source: ImageSource, level: int, plan: TilePlan, tile: Tile) -> NDArray[np.generic]:
        _run_once(f"before-{moment}-{tile.index}.py")
        pixels = read(source, level, plan, tile)
        _run_once(f"after-{moment}-{tile.index}.py")
        return pixels

    worker.load_tile = load_tile  # type: ignore[attr-defined]


def _run_once(name: str) -> None:
    script = Path(os.environ[FAULTS]) / name
    if script.exists():
        text = script.read_text()
        script.unlink()
        exec(text, {})


@ray.remote
class ReadingActor:
    """The tile actor whose image is changed at a chosen read."""

    def __init__(self, device: str) -> None:
        from flows.worker import tile_worker

        change_when_read(tile_worker, "infer")
        self._worker = TileWorker(device)

    def is_ready(self) -> bool:
        return True

    def process(self, run_path: str, index: int, staged: bool) -> TileResult:
        return self._worker.process(place_of(run_path), index, staged=staged)


@ray.remote
class ReadingStager:
    """The stager whose image is changed at a chosen read."""

    def __init__(self) -> None:
        from flows.worker import staging_worker

        change_when_read(staging_worker, "stage")
        self._worker = StagingWorker()

    def stage(self, run_path: str, indices: list[int]) -> list[TileResult]:
        return self._worker.stage(place_of(run_path), indices)
