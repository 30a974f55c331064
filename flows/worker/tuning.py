"""Tuning on a worker's device before a run begins: the core, the precision, the seam error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from flows.worker.model import local_bundle
from tiling.geometry import Box
from tiling.runs.no_data import fill_of
from tiling.source import ImageSource, open_source
from tiling.storage.place import Place
from tiling.view import View
from unet_core.bounds import Edges, Footprint, approximate_footprint
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.inference.autotune import measure_core, recall_core
from unet_core.inference.precision import choose_precision
from unet_core.inference.predictor import OutputRegion, Precision, Predictor
from unet_core.inference.tta import Tta
from unet_core.inference.tuning_job import TuningJob

SAMPLE_PX = 512
SAMPLES = 3
CANDIDATES_PER_SIDE = 3


@dataclass(frozen=True, slots=True)
class TuningRequest:
    """Request for a tuning: what is to be measured.

    Attributes:
        view: which pixels of the image; `level` is one of the view's.
        precision: `auto` to choose it, or the one that was asked for.
        core_px: the core that was asked for; None to choose it.
        approximate_halo_px: the halo of a network without finite bounds; None where the footprint is exact.
        memory_bytes: what one worker may take for a tile and the network's intermediates.
    """

    image: Place
    view: View | None
    level: int
    model: str
    precision: str
    tta: str
    core_px: int | None
    approximate_halo_px: int | None
    memory_bytes: int
    workers: int

    @property
    def is_needed(self) -> bool:
        return self.precision == "auto" or self.core_px is None or self.approximate_halo_px is not None


@dataclass(frozen=True, slots=True)
class Tuning:
    """Result of the tuning. `notes` go into the run card."""

    precision: str
    core_px: int | None
    notes: dict[str, object]


def tune(request: TuningRequest, device: str) -> Tuning:
    """Find out what the request leaves open, on a few samples of the image itself."""
    bundle = _loaded(request.model)
    approximate = request.approximate_halo_px is not None
    precision, notes = request.precision, dict[str, object]()
    fill = fill_of(bundle.card.normalization.mean, bundle.card.dtype)
    with open_source(request.image, request.view, fill) as source:
        if precision == "auto":
            choice = choose_precision(bundle, busiest_samples(source, request.level), device, approximate=approximate)
            precision = choice.precision
            notes |= {"precision": choice.reason, "label agreement with float32": choice.agreement}
        if request.approximate_halo_px is not None:
            error = seam_error(bundle, source, request, device)
            notes["seam error"] = "not measured: the image has no room for twice the halo" if error is None else error
        extent = source.levels[request.level].height, source.levels[request.level].width
    core_px = request.core_px
    if core_px is None and not approximate:
        core_px = measure_core(bundle, _job(request, precision, device, extent))
    return Tuning(precision, core_px, notes)


def recall(request: TuningRequest, device: str, bundle: Bundle | None = None) -> Tuning | None:
    """The same where nothing needs to be measured any more; None where something does.

    `bundle` is the model that is asked for, where the caller has it loaded: slides of an archive share one.
    """
    if request.precision == "auto" or request.approximate_halo_px is not None:
        return None
    with open_source(request.image, request.view) as source:
        extent = source.levels[request.level].height, source.levels[request.level].width
    job = _job(request, request.precision, device, extent)
    core_px = request.core_px or recall_core(bundle or _loaded(request.model), job)
    return Tuning(request.precision, core_px, {}) if core_px is not None else None


def _loaded(reference: str) -> Bundle:
    with local_bundle(reference) as folder:
        return load_bundle(folder)


def _job(request: TuningRequest, precision: str, device: str, extent: tuple[int, int]) -> TuningJob:
    return TuningJob(
        precision=cast("Precision", precision),
        device=device,
        memory_bytes=request.memory_bytes,
        extent=extent,
        workers=request.workers,
        tta=cast("Tta", request.tta),
    )


def busiest_samples(source: ImageSource, level: int, side_px: int = SAMPLE_PX) -> list[NDArray[np.generic]]:
    """Samples `(y, x, band)` from where there is most to see: the greatest spread of values on a 3 x 3 grid."""
    candidates = [source.read_filled(level, box)[0] for box in _sample_boxes(source, level, side_px)]
    return sorted(candidates, key=_spread, reverse=True)[:SAMPLES]


def seam_error(bundle: Bundle, source: ImageSource, request: TuningRequest, device: str) -> float | None:
    """Share of a core's labels that change when a network without finite bounds sees twice the halo.

    None where the image is too small for that.

    Such a network has no exact halo: this is how much its labels depend on what lies beyond the chosen one,
    measured on this image.
    """
    assert request.approximate_halo_px is not None
    predictor = Predictor(bundle, device=device, tta=cast("Tta", request.tta), compiled=False, approximate=True)
    found = approximate_footprint(bundle.module, len(bundle.card.bands), request.approximate_halo_px)
    stride = max(predictor.stride)
    near = -(-request.approximate_halo_px // stride) * stride
    level = source.levels[request.level]
    core = min(-(-SAMPLE_PX // stride), (min(level.height, level.width) - 4 * near) // stride) * stride
    if core <= 0:
        return None
    differing = counted = 0
    for sample in busiest_samples(source, request.level, core + 4 * near):
        wide = predictor.predict(sample, _inside(found, 2 * near, core))
        narrow = predictor.predict(np.ascontiguousarray(sample[near:-near, near:-near]), _inside(found, near, core))
        differing += int(np.count_nonzero(wide != narrow))
        counted += wide.size
    return differing / counted


def _inside(found: Footprint, halo: int, core: int) -> OutputRegion:
    edges = Edges(top=False, bottom=False, left=False, right=False)
    return OutputRegion(found.need((halo, halo, halo + core, halo + core), (0, 0)), edges)


def _sample_boxes(source: ImageSource, level: int, side_px: int) -> Sequence[Box]:
    height, width = source.levels[level].height, source.levels[level].width
    side_y, side_x = min(side_px, height), min(side_px, width)
    steps = range(CANDIDATES_PER_SIDE)
    corners = {
        ((height - side_y) * row // (CANDIDATES_PER_SIDE - 1), (width - side_x) * col // (CANDIDATES_PER_SIDE - 1))
        for row in steps
        for col in steps
    }
    return [Box(y, x, y + side_y, x + side_x) for y, x in sorted(corners)]


def _spread(sample: NDArray[np.generic]) -> float:
    return float(np.nanstd(sample[::4, ::4].astype(np.float32)))
