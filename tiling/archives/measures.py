"""Measures for the quality control of a slide and its mask: brightness, sharpness, objects, areas, what is missing.

They are taken where the slide is closed, from a few dozen small reads and from the run's statistics, so that they cost
little beside the slide itself. None of them changes a label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tiling.export.statistics import Row, read_statistics
from tiling.geometry import Box
from tiling.objects.image import open_objects
from tiling.objects.record import built_objects
from tiling.runs.ledger import LedgerState, TileState
from tiling.runs.mask import BACKGROUND, NOT_PREDICTED
from tiling.runs.placement import placement_of
from tiling.runs.run import Run
from tiling.runs.uncomputed import UncomputedArea
from tiling.source import ImageSource

WINDOW_PX = 256
LOOKS = 16
"""Windows of an image that are looked at, spread evenly over its tiles."""
MASK_WINDOW_PX = 512
MASK_LOOKS = 4
SPECK_PX, SPECK_UM2 = 16, 4.0
"""Objects of fewer pixels are specks; where a pixel's size is known, those of a smaller area."""

UM_PER_UNIT = {"um": 1.0, "m": 1e6}


def measured(run: Run, source: ImageSource, state: LedgerState, wanted_um: float | None) -> dict[str, Any]:
    """Measures of a run whose mask is closed, by name; `wanted_um` is the pixel size that its model was made for.

    brightness, contrast: mean and standard deviation of the windows, 1 being the type's largest value.
    sharpness: of the windows that were computed; None where they are of one colour.
    missing: share of the tiles that are no background that failed. no_data: share of the mask without data.
    damaged: number of the file's segments that don't decode, whose pixels were asked to be no data.
    classes: of each class its objects, its area (with `unit`) and its share of what was computed.
    tissue_area: in the same unit. objects: of all classes; None where they weren't counted.
    specks: share of objects that are specks: of the numbered ones, with those that were left out as too small; where
        none are numbered, of those in the windows of the mask that hold most.
    scale: pixel size over the model's; None where either isn't known.
    """
    return {
        **_of_image(run, source, state),
        **_of_tiles(run, state),
        **_of_statistics(run),
        "specks": _specks(run, state, _speck_px(run, source)),
        "scale": _scale(run, wanted_um),
        "wanted_um": wanted_um,
    }


def sharpness(windows: Iterable[NDArray[np.float32]]) -> float | None:
    """Variance of the Laplacian over the variance, which neither brightness nor contrast changes; None of one colour.

    Both are summed over the windows first: of one without content, the noise of its numbers is no sharpness.
    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study", ICPR 2000.
    """
    pairs = [(float(ndimage.laplace(gray).var()), float(gray.var())) for gray in windows]
    edges, variance = (sum(each) for each in zip((0.0, 0.0), *pairs, strict=True))
    return edges / variance if variance > len(pairs) else None


def speck_counts(labels: NDArray[np.uint8], speck_px: float = SPECK_PX) -> tuple[int, int]:
    """Objects of a window of a mask that don't touch its border, and how many of them are specks."""
    objects = specks = 0
    for label in np.unique(labels):
        if label in {BACKGROUND, NOT_PREDICTED}:
            continue
        parts, count = ndimage.label(labels == label, structure=np.ones((3, 3)))  # type: ignore[misc]
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
        inside = np.setdiff1d(np.arange(1, count + 1), edge)
        objects += len(inside)
        specks += int((sizes[inside] < speck_px).sum())
    return objects, specks


def _of_image(run: Run, source: ImageSource, state: LedgerState) -> dict[str, Any]:
    level, top = run.card.image.level, _largest_value(source)

    @cache
    def gray_of(box: Box) -> NDArray[np.float32]:
        return _gray(source, level, box)

    means, squares, pixels = 0.0, 0.0, 0
    for box in _windows(run, range(run.plan.count), WINDOW_PX, LOOKS):
        gray = gray_of(box)
        means += float(gray.sum())
        squares += float((gray.astype(np.float64) ** 2).sum())
        pixels += gray.size
    computed = _windows(run, state.indices(TileState.DONE).tolist(), WINDOW_PX, LOOKS)
    sharp = sharpness(gray_of(box) * np.float32(255 / top) for box in computed)
    mean = means / pixels
    deviation = max(0.0, squares / pixels - mean * mean) ** 0.5
    return {
        "brightness": round(mean / top, 4),
        "contrast": round(deviation / top, 4),
        "sharpness": None if sharp is None else round(sharp, 5),
        "is_bright_field": len(source.bands) >= 3,
    }


def _of_tiles(run: Run, state: LedgerState) -> dict[str, Any]:
    computed = run.plan.count - state.count(TileState.SKIPPED)
    without = UncomputedArea.of(run, state).no_data or 0
    return {
        "missing": round(len(state.failed) / computed, 4) if computed else 0.0,
        "no_data": round(without / run.plan.mask.area, 4),
        "skipped": round(state.count(TileState.SKIPPED) / run.plan.count, 4),
        "damaged": len(run.card.image.view.damaged) if run.card.image.view is not None else 0,
    }


def _of_statistics(run: Run) -> dict[str, Any]:
    """Figures of the statistics that were exported; nothing where none were."""
    file = run.exports / "statistics.parquet"
    if not file.is_file():
        return {}
    rows = read_statistics(file)
    unit = next((unit for unit in ("mm2", "km2") if f"area_{unit}" in rows[0]), "px")
    classes: dict[str, dict[str, Any]] = {}
    tissue: float | None = None
    for row in rows:
        if row["objects"] is None:
            continue
        area = _area(row, unit)
        classes[row["class"]] = {"objects": row["objects"], "area": area, "share": row["share_of_computed"]}
        if area and row["share_of_foreground"]:
            tissue = area / row["share_of_foreground"]
    objects = sum(each["objects"] for each in classes.values())
    return {"classes": classes, "unit": unit, "tissue_area": tissue or _computed_area(rows, unit), "objects": objects}


def _area(row: Row, unit: str) -> float:
    return float(row["pixels"] if unit == "px" else row[f"area_{unit}"])


def _computed_area(rows: Sequence[Row], unit: str) -> float | None:
    """Area of what was computed: of an image without glass, all of it is tissue."""
    return sum(_area(row, unit) for row in rows if row["share_of_computed"] is not None) or None


def _speck_px(run: Run, source: ImageSource) -> float:
    """Least number of pixels of an object that is no speck."""
    placement = placement_of(run, source)
    size, area = placement.pixel_size, placement.pixel_area
    return SPECK_PX if size is None or area is None or size.unit != "um" else SPECK_UM2 / area


def _specks(run: Run, state: LedgerState, speck_px: float) -> float | None:
    """Share of specks among all objects; None where there are none."""
    built = built_objects(run, state)
    numbered = None if built is None else open_objects(run)
    if built is None or numbered is None:
        return _specks_of_windows(run, speck_px)
    left_out = sum(built.specks.values())
    small = int((numbered.pixels[1:] < speck_px).sum())
    return _share(left_out + small, left_out + numbered.count)


def _specks_of_windows(run: Run, speck_px: float) -> float | None:
    """Share of specks among the objects of the windows that hold most of the classes; None where there are none."""
    mask = run.open_mask(read_only=True)
    level = len(mask.levels) - 1
    coarse = mask.read(Box(0, 0, *(int(side) for side in mask.levels[level].shape)), level)
    covered = np.argwhere((coarse != BACKGROUND) & (coarse != NOT_PREDICTED))
    if not len(covered):
        covered = np.array([[side // 2 for side in coarse.shape]])
    height, width = (int(side) for side in mask.levels[0].shape)
    found = [(0, 0)]
    for y, x in covered[np.linspace(0, len(covered) - 1, MASK_LOOKS).astype(int)]:
        top = max(0, min(int(y) << level, height - 1) - MASK_WINDOW_PX // 2)
        left = max(0, min(int(x) << level, width - 1) - MASK_WINDOW_PX // 2)
        box = Box(top, left, min(height, top + MASK_WINDOW_PX), min(width, left + MASK_WINDOW_PX))
        found.append(speck_counts(mask.read(box), speck_px))
    objects, specks = (sum(each) for each in zip(*found, strict=True))
    return _share(specks, objects)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _scale(run: Run, wanted_um: float | None) -> float | None:
    size = run.card.image.pixel_size
    if size is None or wanted_um is None or size[2] not in UM_PER_UNIT:
        return None
    return round((size[0] * size[1]) ** 0.5 * UM_PER_UNIT[size[2]] / wanted_um, 4)


def _windows(run: Run, tiles: Sequence[int], side_px: int, most: int) -> list[Box]:
    """Windows at the centres of some of the tiles, in pixels of the level."""
    if not tiles:
        return []
    extent = Box(0, 0, *run.plan.extent)
    chosen = sorted({tiles[int(number)] for number in np.linspace(0, len(tiles) - 1, most)})
    boxes: list[Box] = []
    for index in chosen:
        core = run.plan.tile(index).core.intersect(extent)
        top = core.y0 + max(0, core.height - side_px) // 2
        left = core.x0 + max(0, core.width - side_px) // 2
        boxes.append(Box(top, left, min(core.y1, top + side_px), min(core.x1, left + side_px)))
    return boxes


def _gray(source: ImageSource, level: int, box: Box) -> NDArray[np.float32]:
    """Mean of the bands; what holds no number counts as 0."""
    return np.nan_to_num(source.read(level, box).astype(np.float32).mean(axis=-1))


def _largest_value(source: ImageSource) -> float:
    return float(np.iinfo(str(source.dtype)).max) if source.dtype.kind in "iu" else 1.0
