"""Areas of a run's mask, class by class, as the report shows them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.reporting.palette import safe_color
from tiling.errors import TilingError
from tiling.export.export_run import is_shown
from tiling.export.statistics import read_statistics
from tiling.geometry import PixelSize
from tiling.georeference.ground_areas import Ground
from tiling.runs.counts import count_labels, counted_level, ground_areas, recorded_counts
from tiling.runs.ledger import LedgerState
from tiling.runs.mask import BACKGROUND, NOT_PREDICTED, Mask
from tiling.runs.placement import placement_of
from tiling.runs.run import Run
from tiling.runs.uncomputed import UncomputedArea
from tiling.source import ImageSource

_APART = "#808080"
_MOST_STATISTICS_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Area:
    """One line: a class, or what is listed apart (then without a share)."""

    label: int
    name: str
    color: str
    pixels: int
    text: str
    share: float | None
    objects: int | None


@dataclass(frozen=True, slots=True)
class Areas:
    """All lines.

    Attributes:
        rows: the lines.
        level: of the pyramid that was counted: 0 but for masks of very many pixels.
        of_foreground: how large the tissue or data is and what share of it is of any class, in one sentence; empty
            where it isn't known.
        of_no_data: what holds no data and how much lies within the halo of it, in one sentence; empty where all holds
            data.
        computed: the area that was computed and its unit, mm² or km²; None where no length is known.
    """

    rows: tuple[Area, ...]
    level: int
    of_foreground: str
    of_no_data: str = ""
    computed: tuple[float, str] | None = None

    @property
    def has_objects(self) -> bool:
        return any(row.objects is not None for row in self.rows)

    @classmethod
    def of(cls, run: Run, state: LedgerState, source: ImageSource | None = None) -> Areas:
        """Count the mask. Shares are of what was computed; an `UncomputedArea` has lines of its own.

        `source` is the image as it was segmented, where it is open.
        """
        mask = run.open_mask(read_only=True)
        counts, level, measured = recorded_counts(run.plan, state), 0, counted_level(mask)
        if counts is None:
            counts, level = count_labels(mask)
        apart = UncomputedArea.of(run, state)
        pixels = {label: int(counts[label]) for label in range(len(run.classes))}
        pixels[BACKGROUND] = max(0, pixels[BACKGROUND] - apart.area)
        computed = sum(pixels.values())
        unit = _Unit.of_run(run, source).on_ground(mask, counts, measured)
        objects = _objects(run, pixels) if level == 0 else {}
        rows = [
            Area(
                label=label,
                name=item.name,
                color=safe_color(item.color),
                pixels=pixels[label],
                text=unit.text(pixels[label], label),
                share=pixels[label] / computed if computed else 0.0,
                objects=objects.get(label),
            )
            for label, item in enumerate(run.classes)
        ]
        for label, name, count in apart.rows(max(0, int(counts[NOT_PREDICTED]) - (apart.no_data or 0))):
            rows += [Area(label, name, _APART, count, unit.text(count, label), None, None)] if count else []
        of_foreground, of_no_data = _of_foreground(run, pixels, apart, unit), _of_no_data(run, apart, computed, unit)
        return cls(tuple(rows), level, of_foreground, of_no_data, unit.large(computed))


def _of_foreground(run: Run, pixels: Mapping[int, int], apart: UncomputedArea, unit: _Unit) -> str:
    if not apart.foreground:
        return ""
    shares = [
        f"{pixels[label] / apart.foreground:.2%} {item.name}"
        for label, item in enumerate(run.classes)
        if label != BACKGROUND
    ]
    return f"Foreground by a coarse look at the image: {unit.text(round(apart.foreground))}, of it {', '.join(shares)}."


def _of_no_data(run: Run, apart: UncomputedArea, computed: int, unit: _Unit) -> str:
    card = run.card.image.no_data
    if card is None or not apart.no_data:
        return ""
    share = f" ({apart.near / computed:.2%} of what was computed)" if computed else ""
    return (
        f"No data: {unit.text(apart.no_data)}, found by {' and '.join(card.told_by)}. The network saw "
        f"{', '.join(f'{value:g}' for value in card.fill)} there; {unit.text(apart.near)}{share} lie within its halo "
        f"of {_halo(run)} px of such pixels."
    )


def _halo(run: Run) -> str:
    sides = run.plan.halo.sides
    return f"{sides[0]}" if len(set(sides)) == 1 else " / ".join(str(side) for side in sides)


def known_areas(run: Run, state: LedgerState) -> tuple[Area, ...]:
    """The same lines without counting, from the run's exported statistics; none where those aren't of this mask."""
    if not is_shown(run, state, "statistics"):
        return ()
    unit = _Unit.of_run(run)
    names = [item.name for item in run.classes]
    return tuple(
        Area(
            label=row["label"],
            name=row["class"],
            color=safe_color(run.classes[row["label"]].color) if row["class"] in names else _APART,
            pixels=row["pixels"],
            text=unit.said(row) or unit.text(row["pixels"]),
            share=row["share_of_computed"],
            objects=row["objects"],
        )
        for row in read_statistics(run.exports / "statistics.parquet")
        if row["pixels"] or row["class"] in names
    )


@dataclass(frozen=True, slots=True)
class _Unit:
    """One unit and one number of decimals for all areas of a run, so that they stand in a column."""

    name: str
    per_pixel: float
    decimals: int
    ground: Ground | None = None
    per_label: tuple[float, ...] = ()

    @classmethod
    def of_run(cls, run: Run, source: ImageSource | None = None) -> _Unit:
        """Square millimetres or micrometres, kilometres or metres; pixels where no length is known."""
        pixel_size, pixels = run.pixel_size, run.plan.mask.area
        if pixel_size is None:
            return cls("MPix", 1e-6, 3)
        each, ground = _pixel_area(run, pixel_size.on(run.plan.grid), source)
        if pixel_size.unit == "degree" and ground is None:
            return cls("MPix", 1e-6, 3)
        large, small = ("mm²", "µm²") if pixel_size.unit == "um" else ("km²", "m²")
        name, each = (large, each * 1e-6) if pixels * each * 1e-6 >= 0.01 else (small, each)
        return cls(name, each, min(6, max(0, 3 - math.floor(math.log10(max(pixels * each, 1e-9))))), ground)

    def on_ground(self, mask: Mask, counts: NDArray[np.int64], level: int) -> _Unit:
        """The same with the mean size of each label's own pixels, where a map's pixels differ on the ground."""
        if self.ground is None:
            return self
        areas = ground_areas(mask, self.ground, level)
        scale = 1e-6 if self.name == "km²" else 1.0
        return replace(self, per_label=tuple((areas * scale / np.maximum(counts, 1)).tolist()))

    def text(self, pixels: int, label: int | None = None) -> str:
        each = self.per_label[label] if label is not None and self.per_label else self.per_pixel
        return f"{pixels * each:,.{self.decimals}f} {self.name}"

    def large(self, pixels: int) -> tuple[float, str] | None:
        """An area in square millimetres or kilometres; None where no length is known."""
        if self.name == "MPix" or not pixels:
            return None
        each, name = {"µm²": (1e-6, "mm²"), "m²": (1e-6, "km²")}.get(self.name, (1.0, self.name))
        return pixels * self.per_pixel * each, name

    def said(self, row: Mapping[str, Any]) -> str:
        """A row's area on the ground as statistics have it; empty where that isn't another than the map's own."""
        if self.ground is None or row.get("area_km2") is None:
            return ""
        return f"{row['area_km2'] * (1.0 if self.name == 'km²' else 1e6):,.{self.decimals}f} {self.name}"


def _pixel_area(run: Run, size: PixelSize, source: ImageSource | None) -> tuple[float, Ground | None]:
    """Of one mask pixel, also where pixels are no rectangles; of an image that is gone, the rectangle's.

    Where a map's plane doesn't show areas, it is the mean on the ground, with the way there.
    """
    view = run.card.image.view
    # Slides lie nowhere on the earth, where alone pixels are sheared: they aren't opened for this.
    if size.unit != "um" or (view is not None and view.pixel_size is not None):
        try:
            with run.open_source() if source is None else nullcontext(source) as image:
                placement = placement_of(run, image)
            ground = Ground.of(placement, run.plan.mask.shape)
            if ground is not None:
                return ground.total / run.plan.mask.area, ground
            return placement.pixel_area or size.y * size.x, None
        except (TilingError, OSError):
            pass
    return size.y * size.x, None


def _objects(run: Run, pixels: Mapping[int, int]) -> dict[int, int]:
    """Number of objects by class, where the exported statistics are of this very mask; else nothing."""
    try:
        data = (run.exports / "statistics.csv").read_bytes()
        if len(data) > _MOST_STATISTICS_BYTES:
            return {}
        rows = [*_classes_in(data.decode())]
    except (OSError, ValueError, KeyError, TilingError):
        return {}
    if any(pixels.get(label) != counted for label, counted, _ in rows):
        return {}  # a tile was computed again since
    return {label: count for label, _, count in rows}


def _classes_in(text: str) -> Iterator[tuple[int, int, int]]:
    """Label, pixels and objects of the lines that count objects."""
    for row in csv.DictReader(StringIO(text)):
        if row["objects"]:
            yield int(row["label"]), int(row["pixels"]), int(row["objects"])
