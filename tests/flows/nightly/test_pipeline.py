"""Several slides through one pool of real workers, some of which are killed: who comes when, and who fails alone."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from cli import mask_files
from faulty_actors import FaultyActor, plan_fault
from nights import assert_done, carry, context_of, expect_own_masks, hold
from ome_zarrs import write as write_ome_zarr
from oracle import segment_here
from scenes import cut, write_landsat, write_raster
from small_bundles import noise
from tiny import write_noise

from flows.lifecycle.stopping import StopRequest
from flows.nightly.forecast import forecast
from flows.nightly.scan import scan
from flows.nightly.slide_job import SlideJob
from flows.pool.pool import Pool
from tiling.archives.archive import Archive
from tiling.archives.slide_ledger import SlideLedger
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import DiskError
from tiling.runs.run import Run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four slides of 3 x 3 tiles."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        write_noise(folder / f"{number}.tif", 192, 192, seed=number)
    return folder


@pytest.mark.slow
def test_a_night_ends_in_time_though_no_worker_is_there_to_measure(source: Path, model: Path, pool: Pool) -> None:
    """On a cluster whose GPUs are all taken, or not there yet; the next night begins the slides."""
    with Pool(1, actor=FaultyActor, device="cuda") as nobody:
        tiles, known = carry(context_of(source, model, nobody, core=None), StopRequest(ends_at=time.monotonic() + 2))
    assert (tiles, known) == ([], {})
    _, known = carry(context_of(source, model, pool))
    assert_done(known)


@pytest.mark.parametrize("staging", [True, False])
def test_tiles_of_several_slides_share_the_pool_oldest_first(
    source: Path, model: Path, pool: Pool, tmp_path: Path, staging: bool
) -> None:
    tiles, known = carry(context_of(source, model, pool, staging=staging))
    assert_done(known)
    assert sorted(tiles) == [(f"{slide}.tif", tile) for slide in range(4) for tile in range(9)]
    for record in known.values():
        exports = source.parent / "out" / record.folder / "exports"
        assert {"statistics.csv", "mask.ome.tif", "qupath.geojson"} <= {file.name for file in exports.iterdir()}
    places = [int(name[0]) * 9 + tile for name, tile in tiles]
    passed_over = [max(places[:end]) + 1 - end for end in range(1, len(places) + 1)]
    assert max(passed_over) <= 4, "only tiles that are in flight are passed over"
    for number in range(4):
        alone = segment_here(source / f"{number}.tif", tmp_path / f"alone{number}", 64, model=str(model))
        alone.open_mask().build_pyramid()
        assert mask_files(source.parent / f"out/slides/{number}.tif") == mask_files(tmp_path / f"alone{number}")
    assert pool.busy.seconds > 0
    assert 0 < pool.busy.share <= 1


@pytest.mark.slow
def test_a_killed_worker_costs_no_slide(source: Path, model: Path, pool: Pool, faults: Path) -> None:
    plan_fault(faults, "before", 4, times=1)
    _, known = carry(context_of(source, model, pool))
    assert_done(known)
    attempts = [record.attempts for run in runs(source) for record in run.ledger.records()]
    assert sum(each - 1 for each in attempts) in {1, 2}


def runs(source: Path) -> list[Run]:
    return [Run.open(path.parent) for path in sorted((source.parent / "out").glob("slides/*/run.json"))]


def test_a_tile_that_kills_fails_its_slide_alone(source: Path, model: Path, pool: Pool, faults: Path) -> None:
    write_noise(source / "1.tif", 192, 256, seed=1)  # the only one with a twelfth tile
    plan_fault(faults, "before", 11, times=3)
    _, known = carry(context_of(source, model, pool))
    failed = known.pop("1.tif")
    assert (failed.state, failed.failed_tiles) == (SlideState.FAILED, 1)
    assert "its worker died 3 times" in (failed.reason or "")
    assert_done(known)


def test_a_run_that_workers_can_not_open_fails_alone(source: Path, model: Path, pool: Pool) -> None:
    def vandalise(step: str, slide: str) -> None:
        if (step, slide) == ("plan", "2.tif"):
            shutil.rmtree(source.parent / "out/slides/2.tif/mask.ome.zarr")

    _, known = carry(context_of(source, model, pool), after=vandalise)
    failed = known.pop("2.tif")
    assert failed.state is SlideState.FAILED
    assert "mask" in (failed.reason or "")
    assert_done(known)


@pytest.mark.slow
def test_a_manifest_gives_a_slide_a_pixel_size_of_its_own(source: Path, model: Path, faults: Path) -> None:
    manifest = source / "list.csv"

    def night(second_um: float) -> tuple[dict[str, SlideRecord], dict[str, tuple[int, int]]]:
        manifest.write_text(f"slide,image_mpp,mpp\n0.tif,,\n1.tif,{second_um},0.5\n")
        with Pool(2, actor=FaultyActor) as own:  # a pool lives one night, in which no slide comes twice
            _, known = carry(context_of(manifest, model, own, out=source.parent / "out"))
        assert_done(known)
        return known, {run.path.name: run.card.image.extent for run in runs(source)}

    before, sizes = night(0.25)
    asked = context_of(manifest, model, Pool(2), out=source.parent / "elsewhere")
    foreseen = forecast(asked.config, asked.archive, scan(asked.config, asked.archive))
    assert dict(foreseen.slides) == {"0.tif": 192 * 192, "1.tif": 96 * 96}
    assert sizes == {"0.tif": (192, 192), "1.tif": (96, 96)}
    after, sizes = night(0.5)
    assert sizes == {"0.tif": (192, 192), "1.tif": (192, 192)}
    assert (before["1.tif"].pixels, after["1.tif"].pixels) == (96 * 96, 192 * 192)
    (aside,) = Archive.open(source.parent / "out").earlier(after["1.tif"].folder)
    assert Run.open(aside).card.image.extent == (96, 96)


@pytest.mark.parametrize("keep_earlier", [None, 0])
def test_a_renamed_slide_keeps_its_mask_when_its_former_name_gets_another_image(
    tmp_path: Path, model: Path, pool: Pool, keep_earlier: int | None
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    write_noise(source / "scan.tif", 96, 96, seed=0)
    first = hold(source, model, pool)
    mask = mask_files(source.parent / "out/slides/scan.tif")
    (source / "scan.tif").rename(source / "patient1.tif")
    second = hold(source, model, pool)["patient1.tif"]
    assert (second.state, second.folder) == (SlideState.SAME, "slides/scan.tif")
    write_noise(source / "scan.tif", 96, 96, seed=1)
    third = hold(source, model, pool, keep_earlier=keep_earlier)
    expect_own_masks(source, third)
    assert mask_files(source.parent / "out" / third["patient1.tif"].folder) == mask, "moved, not computed again"
    write_noise(source / "scan.tif", 96, 96, seed=2)
    (source / "copy.tif").write_bytes((source / "patient1.tif").read_bytes())
    os.utime(source / "patient1.tif")
    fourth = hold(source, model, pool, keep_earlier=keep_earlier)
    expect_own_masks(source, fourth)
    assert fourth["copy.tif"].state is fourth["patient1.tif"].state is SlideState.SAME
    kept = Archive.open(source.parent / "out").earlier("slides/scan.tif")
    assert len(kept) == (2 if keep_earlier is None else 1), "a run that another slide has is kept"
    assert first["scan.tif"].fingerprint in {Run.open(run).card.image.fingerprint for run in kept}


def test_a_folder_of_ome_zarr_is_a_slide(source: Path, model: Path, pool: Pool) -> None:
    write_ome_zarr(source / "sub/channels.ome.zarr", levels=1)
    known = hold(source, model, pool)
    assert_done(known)
    assert len(known) == 5
    assert Run.open(source.parent / "out/slides/sub/channels.ome.zarr").card.image.format == "ome-zarr-0.5"
    context = context_of(source, model, pool)
    assert scan(context.config, context.archive).unchanged == 5


def test_slides_that_swap_their_names_keep_their_masks(tmp_path: Path, model: Path, pool: Pool) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number, name in enumerate(("a.tif", "b.tif", "c.tif")):
        write_noise(source / name, 96, 96, seed=number)
    hold(source, model, pool)
    (source / "a.tif").rename(source / "was_a.tif")
    for old, new in (("b.tif", "a.tif"), ("c.tif", "b.tif"), ("was_a.tif", "c.tif")):
        (source / old).rename(source / new)
    expect_own_masks(source, hold(source, model, pool))


def test_a_slide_whose_mask_made_room_before_a_kill_is_looked_at_again(
    tmp_path: Path, model: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former run is moved, and the new one made, and no record says so yet."""
    source = tmp_path / "in"
    source.mkdir()
    write_noise(source / "scan.tif", 96, 96, seed=0)
    hold(source, model, pool)
    (source / "scan.tif").rename(source / "patient1.tif")
    hold(source, model, pool)
    write_noise(source / "scan.tif", 96, 96, seed=1)
    with monkeypatch.context() as killed:
        killed.setattr(SlideLedger, "relocate", lambda *_: None)
        hold(source, model, pool)
    context = context_of(source, model, pool)
    assert [slide.name for slide in scan(context.config, context.archive).todo] == ["patient1.tif"]
    known = hold(source, model, pool)
    expect_own_masks(source, known)
    assert known["patient1.tif"].folder == "slides/patient1.tif"


def test_a_full_disk_ends_the_night_and_the_next_goes_on(source: Path, model: Path, pool: Pool) -> None:
    context = context_of(source, model, pool)
    plan = SlideJob.plan

    def full(job: SlideJob) -> None:
        if job.slide.name == "2.tif":
            raise DiskError("the disk is full: make space")
        plan(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlideJob, "plan", full)
        with pytest.raises(DiskError, match="the disk is full"):
            carry(context)
    assert "2.tif" not in {record.slide for record in context.archive.ledger}
    _, known = carry(context_of(source, model, pool))
    assert_done(known)


def test_the_clock_ends_a_night_between_two_tiles(source: Path, model: Path, pool: Pool) -> None:
    stop = StopRequest()

    def end_now(step: str, slide: str) -> None:
        if (step, slide) == ("stage", "1.tif"):
            stop.ends_at = time.monotonic()

    tiles, known = carry(context_of(source, model, pool), stop, end_now)
    assert 0 < len(tiles) < 36
    assert {record.state for record in known.values()} <= {SlideState.DONE, SlideState.BEGUN}
    rest, known = carry(context_of(source, model, pool))
    assert len(tiles) + len(rest) == len({*tiles, *rest}) == 36, "no tile was lost, and none computed twice"
    assert_done(known)


def test_staging_keeps_to_its_budget(source: Path, model: Path, pool: Pool) -> None:
    read_px = Run.open(segment_here(source / "0.tif", source.parent / "run", 64, model=str(model)).path).plan.read_shape
    tile_bytes = read_px[0] * read_px[1] * 3
    most = 0

    def look(step: str, slide: str) -> None:
        nonlocal most
        most = max(most, len([*(source.parent / "out").glob("slides/*/staged.zarr/c.*")]))

    _, known = carry(context_of(source, model, pool, staging_budget=3 * tile_bytes), after=look)
    assert_done(known)
    assert 0 < most <= 3 + 4, "what is handed back is discarded a moment later"
    _, known = carry(context_of(source, model, pool, staging_budget=100, out=source.parent / "other"))
    assert all("staging budget" in (record.reason or "") for record in known.values())


@pytest.mark.slow
def test_scenes_of_several_files_are_slides(model: Path, pool: Pool, tmp_path: Path) -> None:
    pixels, folder = noise(100, 140, seed=3), tmp_path / "in"
    landsat = write_landsat(folder, {f"B{band + 2}": pixels[..., band] for band in range(3)})
    cut(folder / "mosaic", pixels, 2, 2)
    for band, name in enumerate(("r", "g", "b")):
        write_raster(folder / f"{name}.tif", pixels[..., band : band + 1])
    manifest = folder / "scenes.csv"
    manifest.write_text(f'slide,name\n{landsat.name},landsat\nmosaic,\n"red=r.tif,green=g.tif,blue=b.tif",list\n')
    asked = {"bands": "1,2,3", "as_is": True}
    known = hold(manifest, model, pool, **asked)
    assert set(known) == {"landsat", "mosaic", "list"}
    assert_done(known)
    first, *others = [Run.open(folder / "out" / record.folder).open_mask().levels[0][:] for record in known.values()]
    assert all(np.array_equal(first, other) for other in others)
    context = context_of(manifest, model, pool, **asked)
    assert scan(context.config, context.archive).todo == ()
    write_raster(folder / "g.tif", 255 - pixels[..., 1:2])
    assert [slide.name for slide in scan(context.config, context.archive).todo] == ["list"]
