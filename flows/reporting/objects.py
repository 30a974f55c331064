"""Objects of a run in figures, class by class, as the report shows them: how many, how dense, how large."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from flows.reporting.areas import Areas
from flows.reporting.palette import safe_color
from tiling.errors import TilingError
from tiling.export.export_run import is_shown
from tiling.objects.record import asked_objects, built_objects
from tiling.runs.ledger import LedgerState
from tiling.runs.run import Run

BARS = 32
SHARE_SHOWN = 0.99
"""Of the objects lie left of a histogram's last bar, which holds all larger ones."""
_UNITS = {"area_um2": "µm²", "area_m2": "m²"}


@dataclass(frozen=True, slots=True)
class Histogram:
    """Objects of a class by their area.

    Attributes:
        heights: of the bars, the tallest being 1; the last one is of all larger objects.
        counts: of the same.
        most: the area at which the last bar begins.
    """

    heights: tuple[float, ...]
    counts: tuple[int, ...]
    most: float

    @classmethod
    def of(cls, areas: NDArray[np.float64]) -> Histogram:
        most = float(np.quantile(areas, SHARE_SHOWN))
        edges = np.append(np.linspace(0, most or 1.0, BARS), np.inf)
        counts = np.histogram(areas, edges)[0]
        return cls(tuple((counts / counts.max()).tolist()), tuple(counts.tolist()), most)


@dataclass(frozen=True, slots=True)
class ClassObjects:
    """The objects of one class.

    Attributes:
        density: how many there are for each square millimetre or kilometre of what was computed; empty where no length
            is known.
        specks: how many were left out as too small; None where nothing is.
        least: what is too small, in words.
    """

    name: str
    color: str
    count: int
    density: str
    median: str
    specks: int | None
    least: str
    histogram: Histogram | None
    most: str

    @property
    def bars(self) -> list[tuple[int, float, int]]:
        """Place, height and number of each bar."""
        if self.histogram is None:
            return []
        pairs = zip(self.histogram.heights, self.histogram.counts, strict=True)
        return [(place, height, count) for place, (height, count) in enumerate(pairs)]


def object_figures(run: Run, state: LedgerState, areas: Areas) -> tuple[ClassObjects, ...]:
    """Of every class, from the table that was exported; none where there is none of this very mask."""
    try:
        if not is_shown(run, state, "table"):
            return ()
        from pyarrow import parquet

        file = BytesIO((run.exports / "objects-table.parquet").read_bytes())
        names = parquet.read_schema(file).names
        area = next((name for name in _UNITS if name in names), "pixels")
        table = parquet.read_table(file, columns=[*dict.fromkeys(("label", area, "pixels"))])
    except (OSError, ValueError, KeyError, TilingError):
        return ()
    labels, sizes, pixels = (table.column(name).to_numpy() for name in ("label", area, "pixels"))
    pixel_um2 = float(sizes.sum() / pixels.sum()) if area == "area_um2" and len(table) else None
    spec, built = asked_objects(state), built_objects(run, state)
    found: list[ClassObjects] = []
    for label, item in enumerate(run.classes):
        least = spec.least_px.get(label) if spec is not None else None
        specks = built.specks.get(label, 0) if built is not None and least is not None else None
        own = sizes[labels == label].astype(np.float64)
        if label and (own.size or specks):
            too_small = "" if least is None else _below(least, pixel_um2)
            found.append(
                _of_class(item.name, safe_color(item.color), own, _UNITS.get(area, "px"), areas, specks, too_small)
            )
    return tuple(found)


def _of_class(
    name: str,
    color: str,
    sizes: NDArray[np.float64],
    unit: str,
    areas: Areas,
    specks: int | None,
    least: str,
) -> ClassObjects:
    sizes = sizes[np.isfinite(sizes)]
    histogram = Histogram.of(sizes) if sizes.size else None
    density = ""
    if areas.computed is not None and areas.computed[0] > 0:
        density = f"{_short(sizes.size / areas.computed[0])} per {areas.computed[1]}"
    return ClassObjects(
        name,
        color,
        sizes.size,
        density,
        f"{_short(float(np.median(sizes)))} {unit}" if sizes.size else "",
        specks,
        least,
        histogram,
        "" if histogram is None else f"{_short(histogram.most)} {unit}",
    )


def _below(least_px: int, pixel_um2: float | None) -> str:
    """Size below which objects are specks, as the areas beside it are given."""
    pixels = f"{least_px:,} px"
    return f"below {pixels}" if pixel_um2 is None else f"below {_short(least_px * pixel_um2)} µm² ({pixels})"


def _short(value: float) -> str:
    """Three digits and more where the number has them."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}"
