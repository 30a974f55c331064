"""A run's life in random order, against a model of what must be on disk.

Tiles, kills, failures, damage, reruns, verification, exports, an image that is replaced and put back, second drivers.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asked import answer_of, verdict_of
from cli import mask_files
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from hypothesis.strategies import integers, sampled_from
from tiny import save_tiny, write_noise

from flows.config.export import ExportConfig
from flows.config.run import RerunConfig, SegmentConfig
from flows.run.exports import export_here
from flows.run.prepare import prepare
from flows.run.steps import export, record_result, remaining, reopen, stitch, summarise
from flows.worker.result import TileResult
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.errors import RunError
from tiling.runs.ledger import TileState
from tiling.runs.run import Run
from tiling.runs.verification import check_pyramid
from tiling.storage.disk import partial_of
from tiling.storage.place import RunLock

TILES = 5  # in one row, so that the mask has a pyramid
EXAMPLES = 300 if os.environ.get("OVERTILE_SOAK") else 15

tiles = integers(0, TILES - 1)


@dataclass(frozen=True, slots=True)
class World:
    """What every life begins with, and how each must end."""

    image: Path
    model: Path
    planned: Path
    finished: dict[str, bytes]
    exported: dict[str, bytes]
    worker: TileWorker

    def prepare(self, folder: Path) -> Run:
        options = {"core": 128, "foreground": "none", "export": "statistics"}
        asked = {"image": self.image, "out": folder, "model": str(self.model), **options}
        config = SegmentConfig.model_validate(asked)
        return prepare(config, 1, partial(tune, device="cpu"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    image, model = write_noise(folder / "noise.tif", 128, 128 * TILES), save_tiny(folder / "tiny")
    begun = World(image, model, folder / "planned", {}, {}, TileWorker())
    begun.prepare(folder / "planned")
    run, mask = begun.prepare(folder / "finished"), None
    for index in range(TILES):
        mask = mask or run.open_mask()
        record_result(run, mask, begun.worker.process(run.path, index, staged=False), 1)
    run.ledger.flush()
    stitch(run)
    export(run)
    ended = mask_files(folder / "finished"), exported_files(folder / "finished")
    return World(image, model, folder / "planned", *ended, begun.worker)


def exported_files(folder: Path) -> dict[str, bytes]:
    """Pictures and exports, whose bytes follow from the mask; the report has times in it."""
    names = ("overlay.png", "exports/foreground.png", "exports/statistics.csv", "exports/statistics.parquet")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


class Life(RuleBasedStateMachine):
    """One run folder, its driver's unwritten lines, and what a reader must find."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copytree(self.world.planned, self.folder / "run")
        self.run = Run.open(self.folder / "run")
        self.written = dict.fromkeys(range(TILES), TileState.PENDING)  # what the ledger's files say
        self.unwritten: dict[int, TileState] = {}  # what dies with the driver
        self.rotten: set[int] = set()  # damaged, and nobody knows yet
        self.unknown: set[int] = set()  # written by a driver that died before its ledger was
        self.is_built = False  # the ledger says that the pyramid shows every tile that it knows
        self.is_replaced = False  # another image is where the run's own was
        self.report: bytes | None = None  # as it was written last
        self.rotten_file: str | None = None  # of the pyramid or the exports, and nobody knows yet

    def teardown(self) -> None:
        """Whatever happened: the same command again ends with the undisturbed run's bytes."""
        try:
            self._put_back()
            self.driver_is_killed_and_resumes()
            self.verified()
            for index in remaining(self.run):
                self.tile_is_done(index)
            self.ledger_is_flushed()
            self.stitched()
            self.exported()
            assert self._holds_what_it_must()
            self.verified()
        finally:
            self._put_back()
            shutil.rmtree(self.folder)

    @precondition(lambda self: not self.is_replaced)
    @rule()
    def image_is_replaced(self) -> None:
        self.world.image.rename(self.world.image.with_suffix(".own"))
        write_noise(self.world.image, 128, 128 * TILES, seed=1)
        self.is_replaced = True

    @precondition(lambda self: self.is_replaced)
    @rule()
    def image_is_put_back(self) -> None:
        self._put_back()

    def _put_back(self) -> None:
        if self.is_replaced:
            self.world.image.with_suffix(".own").rename(self.world.image)
            self.is_replaced = False

    @precondition(lambda self: not self.is_replaced)
    @rule(index=tiles)
    def tile_is_done(self, index: int) -> None:
        result = self.world.worker.process(self.run.path, index, staged=False)
        self._write_down(result, TileState.DONE)

    @rule(index=tiles)
    def tile_fails(self, index: int) -> None:
        had_labels = self._shard(index).exists()
        self._write_down(TileResult(index, None, 0, {}, "it broke"), TileState.FAILED)
        if had_labels:  # the ledger records it first: never is a tile done whose labels are gone
            self._told()

    @rule(index=tiles)
    def worker_is_killed_after_its_shard(self, index: int) -> None:
        """The shard is there, and nobody knows."""
        if not self.is_replaced and self._known(index) is TileState.PENDING:
            self.world.worker.process(self.run.path, index, staged=False)
            self.rotten.discard(index)

    @rule(index=tiles)
    def writer_is_killed_before_the_name(self, index: int) -> None:
        if self._known(index) is not TileState.PENDING:
            return
        folder = self._shard(index).parent
        folder.mkdir(parents=True, exist_ok=True)
        partial_of(folder / f"{index}").write_bytes(b"half")
        partial_of(self.folder / "run" / "ledger" / "00000099.jsonl").write_bytes(b'{"tile": 0, "sta')

    @rule()
    def ledger_is_flushed(self) -> None:
        self.run.ledger.flush()
        self._told()

    @rule()
    def driver_is_killed_and_resumes(self) -> None:
        """Another image isn't segmented into the same mask; nothing is lost by trying."""
        self.unknown |= set(self.unwritten)
        self.unwritten = {}
        self.run = Run.open(self.folder / "run")
        with RunLock(self.folder / "run"):
            if self.is_replaced:
                with pytest.raises(RunError, match="different run"):
                    self.world.prepare(self.folder / "run")
                with pytest.raises(RunError, match="has changed since"):
                    reopen(RerunConfig(run=self.folder / "run", failed=True))
                return
            self.run = self.world.prepare(self.folder / "run")
        assert not list((self.folder / "run" / "ledger").glob("*.partial"))

    @rule()
    def second_driver_is_refused(self) -> None:
        """Whatever it wants to do; and nothing is otherwise than without it."""
        place = self.folder / "run"
        before = self._files()
        with RunLock(place):
            with pytest.raises(RunError, match="another driver"), RunLock(place):
                pytest.fail("two drivers hold one run")
            with pytest.raises(RunError, match="another driver"):
                export_here(ExportConfig(run=place, formats="statistics"))
        assert self._files() == before

    @rule(index=tiles)
    def bits_rot(self, index: int) -> None:
        if self._known(index) is TileState.DONE and index not in self.rotten:
            flip_a_bit(self._shard(index))
            self.rotten.add(index)

    @precondition(lambda self: not self.unwritten)
    @rule()
    def verified(self) -> None:
        """Sound if and only if the disk holds what the undisturbed run's does, and the ledger knows it.

        Also labels are found that a failed tile has from a later attempt, which died before anybody knew of it; those
        are put right at once. All else is said as often as it is asked.
        """
        hidden = {index for index in self._all(TileState.FAILED) if self._shard(index).exists()}
        known = self._all(TileState.DAMAGED)
        is_right = self._holds_what_it_must() and self.run.ledger.fold().is_complete
        verdict = verdict_of(self.run)
        found = {int(name.partition(",")[2]) for name in verdict.damaged}
        assert found == (self.rotten & self._all(TileState.DONE)) | hidden | known
        assert verdict.is_sound == is_right, verdict
        self.written.update(dict.fromkeys(found - hidden, TileState.DAMAGED))
        self.is_built &= not (found - hidden) and not verdict.pyramid_faults
        self.rotten -= found
        self.rotten_file = None
        answer = answer_of(self.run)
        assert answer["sound"] == (is_right and not hidden)
        if not hidden:
            assert answer == {**asdict(verdict), "sound": is_right, "seconds": 0}
        assert answer_of(Run.open(self.run.path)) == answer

    @precondition(lambda self: not self.unwritten and not self._is_rotten() and self._is_inferred())
    @rule()
    def stitched(self) -> None:
        """As the flow does: when every tile has an end."""
        stitch(self.run)
        assert list(check_pyramid(self.run)) == []
        assert not list((self.folder / "run" / "mask.ome.zarr").rglob("*.partial"))
        self.is_built = True

    @precondition(lambda self: not self.unwritten and not self._is_rotten() and self.is_built and not self.is_replaced)
    @rule()
    def exported(self) -> None:
        """As the flow does, also of a run with failed tiles; what was asked for is known from its start."""
        export(self.run)
        self.report = (self.folder / "run" / "report.html").read_bytes()

    @precondition(lambda self: not self._is_rotten() and not self.is_replaced)
    @rule()
    def driver_comes_to_its_end(self) -> None:
        """What the other rules do by themselves is seldom all done within a life."""
        self.ledger_is_flushed()
        for index in remaining(self.run):
            self.tile_is_done(index)
        self.ledger_is_flushed()
        self.stitched()
        self.exported()

    @precondition(lambda self: not self.unwritten and not self._is_rotten() and self.is_built)
    @rule(shard=integers(0, 2))
    def bits_of_the_pyramid_rot(self, shard: int) -> None:
        file = self.folder / "run" / f"mask.ome.zarr/1/c/0/{shard}"
        if file.exists():  # it isn't where all tiles below it failed
            flip_a_bit(file)
            assert [level for level, _ in check_pyramid(self.run)] == [1]
            self.rotten_file = file.name

    @precondition(lambda self: not self.unwritten and not self._is_rotten())
    @rule(name=sampled_from(["overlay.png", "report.html", "exports/statistics.parquet", "exports/statistics.csv"]))
    def an_export_rots(self, name: str) -> None:
        file = self.folder / "run" / name
        if file.exists():
            flip_a_bit(file)
            self.rotten_file = name

    @invariant()
    def complete_means_complete(self) -> None:
        is_whole = all(state is TileState.DONE for state in self.written.values()) and self.is_built
        outcome = summarise(Run.open(self.run.path), 0.0)
        assert outcome.complete == is_whole
        assert bool(outcome.remedy) != is_whole

    @invariant()
    def the_ledger_says_what_was_written(self) -> None:
        state = Run.open(self.run.path).ledger.fold()
        assert state.states.tolist() == [self.written[index] for index in range(TILES)]

    @invariant()
    def no_failed_tile_shows_labels_and_no_done_one_lacks_them(self) -> None:
        for index in range(TILES):
            file = self._shard(index)
            match self._known(index):
                case TileState.FAILED if index not in self.unknown:
                    assert not file.exists()
                case TileState.DONE if index not in self.rotten:
                    assert file.read_bytes() == self.world.finished[f"0/c/0/{index}"]
                case _:
                    pass

    def _shard(self, index: int) -> Path:
        return self.folder / "run" / f"mask.ome.zarr/0/c/0/{index}"

    def _is_rotten(self) -> bool:
        return bool(self.rotten) or self.rotten_file is not None

    def _told(self) -> None:
        """The ledger's file has what the driver knew."""
        self.is_built &= not self.unwritten
        self.written.update(self.unwritten)
        self.unwritten = {}

    def _holds_what_it_must(self) -> bool:
        """Whether mask, pyramid, pictures and exports are those of the undisturbed run, byte by byte."""
        folder = self.folder / "run"
        mask = {name: data for name, data in mask_files(folder).items() if not name.endswith(".partial")}
        if mask != self.world.finished or exported_files(folder) != self.world.exported:
            return False
        return (folder / "report.html").read_bytes() == self.report

    def _files(self) -> dict[str, bytes]:
        folder = self.folder / "run"
        there = (file for file in folder.rglob("*") if file.is_file() and file.name != "driver.lock")
        return {str(file): file.read_bytes() for file in there}

    def _known(self, index: int) -> TileState:
        return self.unwritten.get(index, self.written[index])

    def _all(self, state: TileState) -> set[int]:
        return {index for index, known in self.written.items() if known is state}

    def _is_inferred(self) -> bool:
        return not {TileState.PENDING, TileState.DAMAGED} & set(self.written.values())

    def _write_down(self, result: TileResult, state: TileState) -> None:
        self.run.ledger._segments._flushed_at = float("inf")  # pyright: ignore[reportPrivateUsage] (flushed by the rule alone)
        record_result(self.run, self.run.open_mask(), result, 1)
        self.unwritten[result.tile] = state
        self.rotten.discard(result.tile)
        self.unknown.discard(result.tile)


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


@pytest.mark.slow
def test_a_run_survives_any_order_of_events(world: World) -> None:
    life: Any = type("LifeInThisWorld", (Life,), {"world": world})
    run_state_machine_as_test(life, settings=settings(max_examples=EXAMPLES, stateful_step_count=20))
