"""Forecast of one run: its plan, memory, tiles and time, before anything is computed or written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from flows.config.run import SegmentConfig
from flows.pool.cores import usable_cores
from flows.reporting.progress import format_seconds
from flows.run.custom_model import with_bundle
from flows.run.intended import Intended, RunRequest, intend
from flows.run.model import Model, load_model
from flows.worker.tuning import tune
from tiling.plan import Tile
from tiling.runs.ledger import TileState
from tiling.runs.run import Run
from tiling.runs.unchanged_source import open_with_version
from tiling.selection.find_foreground import find_foreground
from unet_core.errors import FootprintError
from unet_core.inference.core_pace import seconds_per_core
from unet_core.inference.device import device_name
from unet_core.inference.predictor import Precision
from unet_core.inference.tuning_job import TuningJob

START_SECONDS = 15.0
"""Until the first tile: Prefect, Ray and torch, and the image's plan (measured for README's table)."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run that isn't begun. Lengths in pixels of the level; `skipped` tiles show background alone."""

    image: str
    run: str
    resumes: bool
    level: int
    extent_px: tuple[int, int]
    pixel_size: tuple[float, float, str] | None
    bands: tuple[str, ...]
    core_px: int
    read_px: tuple[int, int]
    halo_px: tuple[int, int, int, int]
    stride_px: tuple[int, int]
    precision: str
    tiles: int
    skipped: int
    done: int
    foreground: str
    workers: int
    worker_bytes: int
    memory_bytes: int
    mask_bytes_at_most: int
    exports: list[str]
    seconds_per_tile: float | None
    seconds: float | None

    def lines(self) -> Iterator[str]:
        """The same for people."""
        (height, width), size = self.extent_px, self.pixel_size
        measure = f", {size[0]:g} x {size[1]:g} {size[2]} per pixel" if size else ""
        yield f"image:   {self.image}, level {self.level}: {height} x {width} px{measure}; {', '.join(self.bands)}"
        top, bottom, left, right = self.halo_px
        yield (
            f"plan:    cores of {self.core_px} px, reads of {self.read_px[0]} x {self.read_px[1]} px (halo {top}, "
            f"{bottom}, {left}, {right}, stride {self.stride_px[0]} x {self.stride_px[1]}), {self.precision}"
        )
        known = f", {self.done} done already" if self.resumes else ""
        yield f"tiles:   {self.tiles}, {self.skipped} skipped ({self.foreground}){known}"
        yield (
            f"memory:  {self.workers} workers of {self.worker_bytes / 2**30:.2f} GiB: "
            f"{self.memory_bytes / 2**30:.2f} GiB; mask at most {self.mask_bytes_at_most / 1e9:.2f} GB on disk"
        )
        yield f"exports: {', '.join(self.exports) or 'none'}"
        if self.seconds_per_tile is None:
            yield "time:    not known for a network without finite bounds"
            return
        yield (
            f"time:    about {format_seconds(self.seconds)}: {self.seconds_per_tile:.2f} s per tile and worker on this "
            f"machine, {START_SECONDS:.0f} s to begin"
        )


def foresee(config: SegmentConfig) -> Forecast:
    """Plan as a run would, measure one tile on this machine, and write nothing.

    Raises:
        SourceError, PlanError, BundleError, FootprintError, RunError: as the run would.
    """
    Run.expect_room(config.out)
    device, workers = device_name(config.device), config.workers or usable_cores()
    source, version = open_with_version(config.image, config.image_view())
    with source, TemporaryDirectory(prefix="overtile-dry-run-") as folder:
        made = with_bundle(config.model_copy(update={"out": Path(folder) / "run"}))
        model_config = made.model_copy(update={"out": config.out})
        model = load_model(model_config)
        found = intend(RunRequest(model, source, version, model_config, workers, partial(tune, device=device)))
        view = found.choice.view
        # Values as the image has them: what is no data is found before they are changed.
        with source.viewed(view and view.model_copy(update={"stretch": None})) as seen:
            foreground = find_foreground(seen, found.choice.level, config.foreground)
        seconds = _seconds_per_tile(model, found, device, workers)
    inside = _inside(found)
    skipped = sum(not (foreground.keeps(tile) and inside(tile)) for tile in found.plan.tiles())
    is_known = (config.out / "run.json").is_file()
    done = _done(config) if is_known else 0
    todo = max(0, found.plan.count - skipped - done)
    mask = found.plan.mask.shape
    return Forecast(
        image=str(config.image),
        run=str(config.out),
        resumes=is_known,
        level=found.choice.level,
        extent_px=found.plan.extent,
        pixel_size=found.image.pixel_size,
        bands=tuple(found.image.bands),
        core_px=found.plan.core_px,
        read_px=found.plan.read_shape,
        halo_px=(found.plan.halo.top, found.plan.halo.bottom, found.plan.halo.left, found.plan.halo.right),
        stride_px=found.plan.stride,
        precision=found.tuning.precision,
        tiles=found.plan.count,
        skipped=skipped,
        done=done,
        foreground=foreground.reason,
        workers=workers,
        worker_bytes=found.memory.worker_bytes,
        memory_bytes=workers * found.memory.worker_bytes,
        mask_bytes_at_most=int(mask[0] * mask[1] * 4 / 3),
        exports=found.formats,
        seconds_per_tile=seconds,
        seconds=None if seconds is None else START_SECONDS + seconds * -(-todo // workers),
    )


def _done(config: SegmentConfig) -> int:
    """Tiles of the run that is there and needn't be computed again, without the skipped ones."""
    return Run.open(config.out).ledger.fold().count(TileState.DONE)


def _inside(found: Intended) -> Callable[[Tile], bool]:
    """Test of tiles that share anything with the polygons of the region that was asked for."""
    view, outline = found.choice.view, found.choice.outline
    if view is None or outline is None:
        return lambda tile: True
    (pixel_y, pixel_x), scale = view.pixel_px, found.plan.grid.scale
    placed = outline.on(view.corner_px, (pixel_y / float(scale[0]), pixel_x / float(scale[1])))
    return lambda tile: placed.meets(tile.valid.y0, tile.valid.x0, tile.valid.y1, tile.valid.x1)


def _seconds_per_tile(model: Model, found: Intended, device: str, workers: int) -> float | None:
    precision, tta = cast("Precision", found.tuning.precision), found.config.tta
    job = TuningJob(precision, device, found.memory.worker_bytes, found.plan.extent, workers, tta)
    try:
        return seconds_per_core(model.bundle, job, found.plan.core_px)
    except FootprintError:
        return None
