"""Segmentation, the Python caller's view of a run: lazy arrays, figures, and single tiles computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.api.executor import choose_executor, run_with
from flows.api.options import Executor
from flows.config.base import checked
from flows.config.option_types import named_place
from flows.config.run import RerunConfig
from flows.reporting.areas import Area, known_areas
from flows.reporting.page import render
from flows.reporting.progress_line import ProgressLine
from tiling.errors import ExportError, TilingError
from tiling.runs.array_image import ARRAY_NAME
from tiling.runs.ledger import LedgerState, TileState
from tiling.runs.run import Run
from tiling.storage.picture import data_url
from tiling.storage.place import Place

if TYPE_CHECKING:
    import xarray

    from tiling.runs.pyramid import Lazy

PICTURE_PX = 480
FAILED_SHOWN = 5


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """A run, finished or not, in its current state. No property reads the mask.

    Labels are 0 background, 1 and up the model's classes, 255 not predicted.
    """

    run: Run

    @property
    def path(self) -> Place:
        """The run's folder."""
        return self.run.path

    @property
    def image(self) -> Lazy:
        """The pixels that were segmented, `(y, x, band)`, lazy."""
        return self.run.open_source().lazy(self.run.card.image.level)

    @property
    def labels(self) -> Lazy:
        """The mask, `(y, x)` uint8, lazy."""
        return self.pyramid[0]

    @property
    def pyramid(self) -> list[Lazy]:
        """The mask at every scale, each half as large as the one before, lazy."""
        return self.run.open_mask(read_only=True).pyramid.lazy()

    @property
    def probabilities(self) -> Lazy | None:
        """One 8-bit channel per class, `(class, y, x)`, lazy; None where they weren't kept."""
        kept = self.run.open_probabilities(read_only=True)
        return None if kept is None else kept.pyramid.lazy()[0]

    @property
    def classes(self) -> dict[int, str]:
        """Names of the labels."""
        return {label: item.name for label, item in enumerate(self.run.classes)}

    @property
    def failed(self) -> dict[str, str]:
        """The tiles that failed, `"ROW,COL"` to the reason."""
        state = self.run.ledger.fold()
        return {self.run.plan.tile(index).name: record.reason or "" for index, record in state.failed.items()}

    @property
    def complete(self) -> bool:
        """True if every tile is there, and the pyramid shows them all."""
        return self.run.ledger.fold().is_complete

    @property
    def summary(self) -> str:
        """Progress and outcome, in one sentence."""
        state = self.run.ledger.fold()
        others = ((TileState.DAMAGED, "damaged"), (TileState.PENDING, "to do"))
        more = "".join(f", {state.count(kind)} {name}" for kind, name in others if state.count(kind))
        lacking = "" if state.is_closed or more else f"; NOT complete: {state.missing}"
        return (
            f"{state.count(TileState.DONE)} of {self.run.plan.count} tiles computed, "
            f"{state.count(TileState.SKIPPED)} skipped, {len(state.failed)} failed{more}{lacking}"
        )

    def statistics(self) -> list[dict[str, Any]]:
        """Pixels, area, share and objects per class: the rows of `exports/statistics.parquet`, counted where needed.

        Raises:
            RunError: another driver is at work on the run.
            ExportError: the run isn't finished.
        """
        from flows.config.export import ExportConfig
        from flows.run.exports import export_here
        from tiling.export.statistics import read_statistics

        export_here(ExportConfig(run=self.path, formats="statistics"))
        return read_statistics(self.run.exports / "statistics.parquet")

    def objects(self, columns: Sequence[str] | None = None) -> Any:
        """A row for each object with all that is measured of it, and its polygon where GeoPandas is installed.

        Nothing is read before this is called, and of the file only the columns that are named: `id` and those. It is a
        `geopandas.GeoDataFrame`, else a `pandas.DataFrame`, else a `pyarrow.Table`.

        Raises:
            RunError: another driver is at work on the run.
            ExportError: the run isn't finished, its objects aren't numbered, or a column isn't there.
        """
        from flows.api.objects import objects_of

        return objects_of(self.run, columns)

    def to_xarray(self) -> xarray.Dataset:
        """Labels and probabilities with coordinates in µm or on the map, lazy (`tiling.export.xarray_dataset`).

        Raises:
            ExportError: xarray isn't installed.
            SourceError: the image is gone.
        """
        from tiling.export.xarray_dataset import dataset_of

        return dataset_of(self.run)

    def export(self, *formats: str, force: bool = False) -> list[Place]:
        """Write the run in formats that others open, by their names; gives the files that were written.

        Without a name it is what suits the image. What shows the mask already is written again with `force` only.

        Raises:
            ConfigError: a name that is no format.
            ExportError: the run isn't finished, or a format can't say what it is.
            RunError: another driver is at work on the run.
        """
        from flows.config.export import ExportConfig
        from flows.run.exports import export_here

        asked = {"run": self.path, "again": force, **({"formats": formats} if formats else {})}
        return export_here(checked(ExportConfig, asked))

    def to_napari(self, viewer: Any = None) -> Any:
        """Show image, mask, objects and probabilities in a viewer of napari, a new one where none is given; gives it.

        Raises:
            ExportError: napari isn't installed.
            SourceError: the image is gone.
        """
        from tiling.napari_reader import layers_of

        if viewer is None:
            try:
                import napari  # pyright: ignore[reportMissingImports]
            except ImportError as error:
                raise ExportError(
                    f"a viewer of napari needs napari, which can't be imported ({error}): install it with "
                    f"pip install 'napari[all]'"
                ) from error
            viewer = napari.Viewer()
        for data, looks, kind in layers_of(self.run):
            getattr(viewer, f"add_{kind}")(data, **looks)
        return viewer

    def rerun(
        self, *tiles: str, executor: Executor = "auto", progress: bool = True, workers: int | None = None
    ) -> Segmentation:
        """Compute tiles again, `"ROW,COL"` each, or all that failed when none is named; gives the same object.

        Args:
            tiles: which ones.
            executor: as of `segment_image`; of `auto`, the reads of those tiles count.
            progress: whether a bar shows how far it is.
            workers: actors of Ray.

        Raises:
            ConfigError, PlanError: a name that is no tile's.
            RunError: the image has changed, or another driver is at work on the run.
        """
        if not tiles and not self.failed:
            return self
        asked = {"run": self.path, "tiles": tiles, "failed": not tiles, "workers": workers}
        config = checked(RerunConfig, asked)
        with ProgressLine(is_shown=progress) as line:
            run_with(choose_executor(executor, config, self._read_bytes(len(tiles))), config, line.on_progress)
            line.print_line(self.summary)
        return self

    def _read_bytes(self, tiles: int) -> int:
        """Bytes that the reads of so many tiles take, of all that failed where none is named."""
        height, width = self.run.plan.read_shape
        image = self.run.card.image
        pixel_bytes = len(image.bands) * np.dtype(image.dtype).itemsize
        return (tiles or len(self.failed)) * height * width * pixel_bytes

    def __repr__(self) -> str:
        return f"<Segmentation {self.path}: {self.summary}>"

    def _repr_html_(self) -> str:
        """For notebooks: the picture and the figures, of small files alone."""
        return render("segmentation.html", self._facts())

    def _facts(self) -> dict[str, Any]:
        state, card = self.run.ledger.fold(), self.run.card
        failed, name = self.failed, card.image.path.rstrip("/").rpartition("/")[2]
        return {
            "name": self.path.name,
            "path": str(self.path),
            "image_name": "an array" if name == ARRAY_NAME else name,
            "model": card.model.name,
            "shape": self.run.plan.mask.shape,
            "extent": self._extent(),
            "tiles": self.run.plan.count,
            "done": state.count(TileState.DONE),
            "skipped": state.count(TileState.SKIPPED),
            "pending": state.count(TileState.PENDING),
            "lacking": state.missing,
            "failed": [*failed.items()][:FAILED_SHOWN],
            "failed_in_all": len(failed),
            "rows": self._rows(state),
            "picture": self._picture(),
        }

    def _extent(self) -> str:
        """Lengths of the mask's sides, where its pixels' are known."""
        size, (height, width) = self.run.pixel_size, self.run.plan.mask.shape
        if size is None or size.unit == "degree":
            return ""
        mask_px = size.on(self.run.plan.grid)
        large, small = ("mm", "µm") if size.unit == "um" else ("km", "m")
        tall, wide = height * mask_px.y, width * mask_px.x
        if max(tall, wide) < 1000 and size.unit == "m":
            return f"{wide:,.0f} × {tall:,.0f} {small}"
        return f"{wide / 1000:,.2f} × {tall / 1000:,.2f} {large}"

    def _rows(self, state: LedgerState) -> list[dict[str, Any]]:
        """Classes, with the figures that the run's exported statistics have of this very mask."""
        known = known_areas(self.run, state)
        if not known:
            return [{"name": item.name, "color": item.color, "cells": []} for item in self.run.classes[1:]]
        return [{"name": row.name, "color": row.color, "cells": _cells(row)} for row in known if row.label]

    def _picture(self) -> str | None:
        try:
            return data_url(self.run.overlay_path, PICTURE_PX)
        except (OSError, ValueError, TilingError):
            return None


def _cells(row: Area) -> list[str]:
    share = f"{row.share:.2%}" if row.share is not None else ""
    return [row.text, share, f"{row.objects:,} objects" if row.objects is not None else ""]


def open_run(path: str | Place) -> Segmentation:
    """A run that is there: a folder, or a URL.

    Raises:
        RunError: no run there, or its card is damaged.
    """
    return Segmentation(Run.open(named_place(path)))
