"""Resume after a kill: what must not change in between, and what may: image, weights, clock, staged tiles."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cli import mask_files
from rich.console import Console
from safetensors.numpy import load_file, save_file
from tiny import save_tiny, write_foreground, write_noise

from flows.commands.terminal import print_status
from flows.config.run import SegmentConfig
from flows.run.prepare import prepare
from flows.run.steps import record_result, remaining, stitch
from flows.worker.staging_worker import StagingWorker
from flows.worker.tile_worker import TileWorker
from flows.worker.tuning import tune
from tiling.errors import RunError
from tiling.runs import mask
from tiling.runs.ledger import INFERRING, TileState
from tiling.runs.run import Run
from unet_core.errors import BundleError

TILES = 6


class Job:
    """A command whose driver is killed after some tiles."""

    def __init__(self, folder: Path) -> None:
        self.image = write_noise(folder / "noise.tif", 256, 384)
        self.model = save_tiny(folder / "tiny")
        self.out = folder / "run"

    def resume(self) -> Run:
        config = SegmentConfig(image=self.image, out=self.out, model=str(self.model), core=128, foreground="none")
        return prepare(config, 1, partial(tune, device="cpu"))

    def compute(self, run: Run, tiles: int, *, staged: bool = False) -> None:
        """As one driver does, until it is killed."""
        run.ledger.announce(INFERRING, {"todo": tiles, "workers": 1})
        worker, mask = TileWorker(), run.open_mask()
        for index in remaining(run)[:tiles]:
            record_result(run, mask, worker.process(run.path, index, staged=staged), 1)
        run.ledger.flush()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


@pytest.fixture
def whole(job: Job, tmp_path: Path) -> dict[str, bytes]:
    """The mask of an undisturbed run."""
    out, job.out = job.out, tmp_path / "whole"
    run = job.resume()
    job.compute(run, TILES)
    stitch(run)
    job.out = out
    return mask_files(tmp_path / "whole")


def expect_refused_then_resumed(
    job: Job, whole: dict[str, bytes], change: Callable[[], object], undo: Callable[[], object], named: str
) -> None:
    job.compute(job.resume(), 3)
    before = mask_files(job.out)
    change()
    with pytest.raises(RunError, match=rf"holds a different run \({named}: \S+ here, \S+ asked for\)") as refused:
        job.resume()
    assert "choose another --out, or repeat the command that made it" in str(refused.value)
    assert mask_files(job.out) == before
    undo()
    run = job.resume()
    assert len(remaining(run)) == TILES - 3
    job.compute(run, TILES)
    stitch(run)
    assert mask_files(job.out) == whole


def test_another_image_at_the_same_place_is_refused_at_resume(job: Job, whole: dict[str, bytes]) -> None:
    content = job.image.read_bytes()
    flipped = bytes([*content[:-1], content[-1] ^ 1])
    expect_refused_then_resumed(
        job,
        whole,
        lambda: job.image.write_bytes(flipped),
        lambda: job.image.write_bytes(content),
        "image fingerprint",
    )


def test_other_weights_at_the_same_place_are_refused_at_resume(job: Job, whole: dict[str, bytes]) -> None:
    weights = job.model / "weights.safetensors"
    content = weights.read_bytes()
    expect_refused_then_resumed(
        job, whole, lambda: nudge(weights), lambda: weights.write_bytes(content), "model digest"
    )


def nudge(weights: Path) -> None:
    tensors = load_file(weights)
    name = next(name for name, tensor in tensors.items() if tensor.dtype == np.float32 and tensor.size)
    tensors[name] = tensors[name] * np.float32(1.001)
    save_file(tensors, weights)


def test_weights_that_change_while_a_run_goes_on_stop_it(job: Job) -> None:
    run = job.resume()
    nudge(job.model / "weights.safetensors")
    with pytest.raises(BundleError, match="has changed since the run began: two models would share one mask"):
        job.compute(run, 1)


def test_the_same_image_elsewhere_is_the_same_run(job: Job, whole: dict[str, bytes], tmp_path: Path) -> None:
    job.compute(job.resume(), 3)
    job.image = job.image.rename(tmp_path / "moved.tif")
    assert len(remaining(job.resume())) == TILES - 3


@pytest.mark.parametrize("jump", [-86400.0, 86400.0], ids=["a day back", "a day ahead"])
def test_a_clock_that_jumps_between_drivers_changes_no_rate(
    job: Job, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    job.compute(job.resume(), 3)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    job.compute(job.resume(), 2)
    took = time.monotonic() - began
    run = Run.open(job.out)
    state = run.ledger.fold()
    assert [record.tile for record in run.ledger.records()] == [0, 1, 2, 3, 4], "in the order in which they were done"
    assert 0 < state.elapsed < took
    shown = io.StringIO()
    print_status(Console(file=shown, width=120), run)
    assert "5 done, 0 skipped, 0 failed, 1 to do of 6 tiles" in shown.getvalue()
    assert "-" not in shown.getvalue().partition("tiles; ")[2].partition("\n")[0], "a rate, and 0:00 left"


def test_a_clock_that_is_set_back_while_a_driver_works_reorders_nothing(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(10**9, 0, -3600))
    run = job.resume()
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    job.compute(run, TILES)
    records = list(run.ledger.records())
    assert [record.time for record in records] == sorted(record.time for record in records)
    assert records[-1].time - records[0].time < 3600
    assert run.ledger.fold().elapsed == pytest.approx(records[-1].time - records[0].time)


@pytest.mark.parametrize("harm", ["gone", "empty", "cut"])
def test_a_staged_tile_that_was_lost_with_its_worker_is_read_from_the_image(
    job: Job, whole: dict[str, bytes], harm: str
) -> None:
    """A worker that dies between its shard and its answer has discarded the tile; a power cut leaves files empty."""
    run = job.resume()
    run.create_staged()
    assert all(result.reason is None for result in StagingWorker().stage(run.path, list(range(TILES))))
    for file in sorted((job.out / "staged.zarr").glob("c.*"))[:3]:
        if harm == "gone":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[: 0 if harm == "empty" else 1000])
    job.compute(run, TILES, staged=True)
    assert run.ledger.fold().failed == {}
    stitch(run)
    assert mask_files(job.out) == whole


class Finished:
    """A finished run of six tiles, one of them skipped, with probabilities and two levels."""

    def __init__(self, folder: Path) -> None:
        self.job = Job(folder)
        self.job.image = write_noise(folder / "wide.tif", 128, 768)
        self.foreground = write_foreground(folder / "foreground.png", 1, 6, (0, 4))
        self.end()
        self.files = self.now()

    @property
    def out(self) -> Path:
        return self.job.out

    def resume(self) -> Run:
        config = SegmentConfig(
            image=self.job.image,
            out=self.out,
            model=str(self.job.model),
            core=128,
            foreground=str(self.foreground),
            probabilities=True,
        )
        return prepare(config, 1, partial(tune, device="cpu"))

    def end(self) -> int:
        """The same call again; how many tiles it computed."""
        run = self.resume()
        todo = remaining(run)
        self.job.compute(run, len(todo))
        stitch(run)
        assert run.ledger.fold().states.tolist().count(TileState.SKIPPED) == 1
        return len(todo)

    def now(self) -> dict[str, bytes]:
        images = [file for file in self.out.rglob("*.ome.zarr/**/*") if file.is_file()]
        return {str(file.relative_to(self.out)): file.read_bytes() for file in images}


@pytest.fixture
def ended(tmp_path: Path) -> Finished:
    return Finished(tmp_path)


METADATA = [f"{image}.ome.zarr/{level}zarr.json" for image in ("mask", "probabilities") for level in ("", "0/", "1/")]


@pytest.mark.parametrize(
    "harm",
    [
        "gone",
        "cut",
        pytest.param("empty", marks=pytest.mark.slow),
        pytest.param("of another kind", marks=pytest.mark.slow),
        "wrong",
    ],
)
@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_is_lost_or_damaged_is_made_again_and_no_tile_with_it(
    ended: Finished, name: str, harm: str
) -> None:
    file = ended.out / name
    if harm == "gone":
        file.unlink()
    else:
        good = file.read_bytes()
        file.write_bytes({"cut": good[:200], "empty": b"", "of another kind": b"[]", "wrong": but_wrong(good)}[harm])
    assert ended.end() == 0
    assert ended.now() == ended.files


def but_wrong(metadata: bytes) -> bytes:
    """Whole, and not as it was planned: an array of half the width, a group without its coarser level."""
    found = json.loads(metadata)
    if found["node_type"] == "array":
        found["shape"][-1] //= 2
    else:
        found["attributes"]["ome"]["multiscales"][0]["datasets"].pop()
    return json.dumps(found).encode()


def test_names_and_colours_that_a_person_has_changed_stay(ended: Finished) -> None:
    file = ended.out / "mask.ome.zarr" / "zarr.json"
    found = json.loads(file.read_bytes())
    found["attributes"]["ome"]["image-label"]["colors"][1]["rgba"] = [1, 2, 3, 255]
    file.write_text(json.dumps(found))
    assert ended.end() == 0
    assert json.loads(file.read_bytes()) == found


@pytest.mark.parametrize("lost", ["mask.ome.zarr", "mask.ome.zarr/0", "probabilities.ome.zarr"])
def test_tiles_that_are_lost_with_their_metadata_are_computed_again(ended: Finished, lost: str) -> None:
    shutil.rmtree(ended.out / lost)
    assert ended.end() == TILES - 1
    assert ended.now() == ended.files


def test_a_level_that_is_lost_with_its_metadata_is_built_again_from_the_tiles(ended: Finished) -> None:
    shutil.rmtree(ended.out / "mask.ome.zarr" / "1")
    assert ended.end() == 0
    assert ended.now() == ended.files


def test_a_driver_that_is_killed_before_lost_metadata_is_made_again_begins_with_it_again(
    ended: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(ended.out / "mask.ome.zarr")
    with monkeypatch.context() as patched:
        patched.setattr(mask.PyramidMetadata, "write", _killed)
        with pytest.raises(KeyboardInterrupt):
            ended.resume()
    assert ended.end() == TILES - 1
    assert ended.now() == ended.files


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", METADATA[:3])
def test_a_mask_without_its_metadata_is_told_on_one_line(ended: Finished, name: str) -> None:
    file = ended.out / name
    for content in (b"", file.read_bytes()[:200], b"[]"):
        file.write_bytes(content)
        with pytest.raises(RunError, match=r"overtile segment on the image again") as raised:
            Run.open(ended.out).open_mask(read_only=True)
        assert "\n" not in str(raised.value)
