"""A run's life in random order, against a model of what must be on disk: tiles, kills, failures, damage, reruns."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli import mask_files
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from hypothesis.strategies import integers
from tiny import save_tiny, write_noise

from flows.config import SegmentConfig
from flows.prepare import prepare
from flows.result import TileResult
from flows.segment import remaining, stitch, write_down
from flows.tuning import tune
from flows.verify import mark
from flows.worker import TileWorker
from tiling.disk import partial_of
from tiling.errors import RunError
from tiling.ledger import PYRAMID_DAMAGED, TileState
from tiling.run import Run
from tiling.storage import RunLock
from tiling.verification import check_pyramid, check_shards

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
    worker: TileWorker

    def prepare(self, folder: Path) -> Run:
        config = SegmentConfig(image=self.image, out=folder, model=str(self.model), core=128, foreground="none")
        return prepare(config, 1, partial(tune, device="cpu"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    image, model = write_noise(folder / "noise.tif", 128, 128 * TILES), save_tiny(folder / "tiny")
    begun = World(image, model, folder / "planned", {}, TileWorker())
    begun.prepare(folder / "planned")
    run, mask = begun.prepare(folder / "finished"), None
    for index in range(TILES):
        mask = mask or run.open_mask()
        write_down(run, mask, begun.worker.process(run.path, index, staged=False), 1)
    run.ledger.flush()
    stitch.fn(run)
    return World(image, model, folder / "planned", mask_files(folder / "finished"), begun.worker)


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

    def teardown(self) -> None:
        """Whatever happened: the same command again ends with the undisturbed run's bytes."""
        try:
            self.driver_is_killed_and_resumes()
            self.bit_rot_is_found()
            for index in remaining(self.run):
                self.tile_is_done(index)
            self.ledger_is_flushed()
            self.stitched()
            assert mask_files(self.folder / "run") == self.world.finished
        finally:
            shutil.rmtree(self.folder)

    @rule(index=tiles)
    def tile_is_done(self, index: int) -> None:
        result = self.world.worker.process(self.run.path, index, staged=False)
        self._write_down(result, TileState.DONE)

    @rule(index=tiles)
    def tile_fails(self, index: int) -> None:
        had_labels = self._shard(index).exists()
        self._write_down(TileResult(index, None, 0, {}, "it broke"), TileState.FAILED)
        if had_labels:  # the ledger is told first: never is a tile done whose labels are gone
            self.written.update(self.unwritten)
            self.unwritten = {}

    @rule(index=tiles)
    def worker_is_killed_after_its_shard(self, index: int) -> None:
        """The shard is there, and nobody knows."""
        if self._known(index) is TileState.PENDING:
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
        self.written.update(self.unwritten)
        self.unwritten = {}

    @rule()
    def driver_is_killed_and_resumes(self) -> None:
        self.unknown |= set(self.unwritten)
        self.unwritten = {}
        with RunLock(self.folder / "run"):
            self.run = self.world.prepare(self.folder / "run")
        assert not list((self.folder / "run" / "ledger").glob("*.partial"))

    @rule()
    def second_driver_is_refused(self) -> None:
        place = self.folder / "run"
        with RunLock(place), pytest.raises(RunError, match="another driver"), RunLock(place):
            pytest.fail("two drivers hold one run")

    @rule(index=tiles)
    def bits_rot(self, index: int) -> None:
        if self._known(index) is TileState.DONE and index not in self.rotten:
            flip_a_bit(self._shard(index))
            self.rotten.add(index)

    @precondition(lambda self: not self.unwritten)
    @rule()
    def bit_rot_is_found(self) -> None:
        """Also labels that a failed tile has from a later attempt, which died before anybody knew of it."""
        findings = list(check_shards(self.run))
        hidden = {index for index in self._all(TileState.FAILED) if self._shard(index).exists()}
        found = {finding.tile for finding in findings if finding.fault is not None}
        assert found == (self.rotten & self._all(TileState.DONE)) | hidden
        mark.fn(self.run, findings)
        self.written.update(dict.fromkeys(found - hidden, TileState.DAMAGED))
        self.rotten -= found

    @precondition(lambda self: not self.unwritten and not self.rotten and self._is_inferred())
    @rule()
    def stitched(self) -> None:
        """As the flow does: when every tile has an end."""
        stitch.fn(self.run)
        assert list(check_pyramid(self.run)) == []
        assert not list((self.folder / "run" / "mask.ome.zarr").rglob("*.partial"))

    @precondition(lambda self: not self.unwritten and not self.rotten and self._is_stitched())
    @rule(shard=integers(0, 2))
    def bits_of_the_pyramid_rot(self, shard: int) -> None:
        flip_a_bit(self.folder / "run" / f"mask.ome.zarr/1/c/0/{shard}")
        assert [level for level, _ in check_pyramid(self.run)] == [1]
        self.run.ledger.announce(PYRAMID_DAMAGED, {"shards": 1})

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

    def _is_stitched(self) -> bool:
        state = self.run.ledger.fold()
        return state.pyramid_stands and not state.unstitched.any()

    def _known(self, index: int) -> TileState:
        return self.unwritten.get(index, self.written[index])

    def _all(self, state: TileState) -> set[int]:
        return {index for index, known in self.written.items() if known is state}

    def _is_inferred(self) -> bool:
        return not {TileState.PENDING, TileState.DAMAGED} & set(self.written.values())

    def _write_down(self, result: TileResult, state: TileState) -> None:
        self.run.ledger._segments._flushed_at = float("inf")  # pyright: ignore[reportPrivateUsage] (flushed by the rule alone)
        write_down(self.run, self.run.open_mask(), result, 1)
        self.unwritten[result.tile] = state
        self.rotten.discard(result.tile)
        self.unknown.discard(result.tile)


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def test_a_run_survives_any_order_of_events(world: World) -> None:
    life: Any = type("LifeInThisWorld", (Life,), {"world": world})
    run_state_machine_as_test(life, settings=settings(max_examples=EXAMPLES, stateful_step_count=20))
