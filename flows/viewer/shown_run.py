"""A run as the page shows it: facts, the ledger's state, and squares of the slide and of the mask."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flows.reporting.bottleneck import StageTimes
from flows.reporting.palette import class_colors
from flows.viewer.outline_colors import outline_colors
from flows.viewer.painting import Paint, jpeg, paint, thumbnail
from flows.viewer.shown_objects import ShownObjects
from tiling.errors import RunError, TilingError
from tiling.objects.image import ObjectImage
from tiling.runs.deepzoom import SHOWN_NO_DATA, SQUARE_PX, DeepImage, DeepMask, ZoomGrid
from tiling.runs.ledger import LedgerState, TileRecord, TileState
from tiling.runs.run import Run
from tiling.source import ImageSource
from tiling.storage.place import Place

FAILED_NAMED = 500
RUNNING_SECONDS = 120.0
"""A run with tiles to do whose ledger has grown within this time is being worked on."""
OUTLINED_TO_ZOOM = 1
"""Coarser squares show outlines of classes: touching objects are too small there to be told apart."""

_reading = threading.BoundedSemaphore(2)
"""How many squares are read at once, over all runs: each holds some megabytes of decoded pixels."""


class ShownRun:
    """A run that is looked at. Safe to use from several threads; nothing is read before it is asked for.

    Raises:
        RunError: no run there, or its card is damaged.
    """

    def __init__(self, place: Place, name: str) -> None:
        self.name = name
        self.run = Run.open(place)
        self._grid = ZoomGrid.of(self.run.plan)
        self._lock = threading.Lock()
        self._source: ImageSource | None = None
        self._image: DeepImage | None = None
        self._mask: DeepMask | None = None
        self._folded: tuple[int, LedgerState] | None = None
        self._thumbnail: tuple[int, bytes] | None = None
        self._objects: tuple[int, ShownObjects] | None = None
        self._outline_colors: list[str] | None = None

    def close(self) -> None:
        with self._lock:
            source, self._source, self._image = self._source, None, None
        if source is not None:
            source.close()

    @property
    def place(self) -> Place:
        return self.run.path

    def facts(self) -> dict[str, Any]:
        """Facts that don't change while the page is open."""
        card, plan = self.run.card, self.run.plan
        return {
            "name": self.name,
            "path": str(self.run.path),
            "image": {
                "name": _last_part(card.image.path),
                "path": card.image.path,
                "format": card.image.format,
                "height": plan.extent[0],
                "width": plan.extent[1],
                "corner": self._corner(),
                "pixel_size": self._pixel_size(),
            },
            "slide": self._slide_problem(),
            "affine": self._affine(),
            "model": card.model.name,
            "created": card.created,
            "no_data": SHOWN_NO_DATA if self._tells_no_data else None,
            "tiles": {"rows": plan.shape[0], "cols": plan.shape[1], "core": plan.core_px},
            "zoom": {"coarsest": self._grid.coarsest, "finest": self._grid.finest, "square": SQUARE_PX},
            "classes": [
                {"label": label, "name": item.name, "color": own, "safe": safe, "outline": outline}
                for label, (item, own, safe, outline) in enumerate(
                    zip(
                        self.run.classes,
                        class_colors(self.run.classes),
                        class_colors(self.run.classes, safe=True),
                        self.outline_colors(),
                        strict=True,
                    )
                )
            ],
        }

    def outline_colors(self) -> list[str]:
        """One colour per label that stands out from the picture; the model's own where it can't be read."""
        if self._outline_colors is None:
            own = [*class_colors(self.run.classes)]
            try:
                with _reading:
                    picture = self._deep_image().square(self._grid.coarsest, 0, 0)
                    labels = self._deep_mask().square(self._grid.coarsest, 0, 0, known=self._known())
            except TilingError:
                return own
            self._outline_colors = outline_colors(own, picture, labels)
        return self._outline_colors

    def _pixel_size(self) -> dict[str, Any] | None:
        """Of the level that is segmented."""
        size = self.run.pixel_size
        return {"y": size.y, "x": size.x, "unit": size.unit} if size else None

    def _corner(self) -> dict[str, int]:
        """Corner of a region, in pixels of the level that is segmented."""
        view = self.run.card.image.view
        y, x = view.region[:2] if view is not None and view.region is not None else (0, 0)
        return {"y": y, "x": x}

    def state(self) -> dict[str, Any]:
        """State of the run as the ledger has it now."""
        revision, state = self._fold()
        named = {**state.failed, **state.damaged}
        return {
            "revision": revision,
            **self._summary(state),
            "failed": [self._described(index, named[index]) for index in sorted(named)[:FAILED_NAMED]],
            "failed_in_all": len(named),
        }

    def row(self) -> dict[str, Any]:
        """A line of the archive's table."""
        revision, state = self._fold()
        card = self.run.card
        return {
            "name": self.name,
            "revision": revision,
            "image": _last_part(card.image.path),
            "model": card.model.name,
            "created": card.created,
            "megapixels": self.run.plan.image.area / 1e6,
            "pixel_size": self._pixel_size(),
            **self._summary(state),
        }

    def tile_states(self) -> bytes:
        """One byte per tile, row by row: its state's number."""
        return self._fold()[1].states.tobytes()

    def slide(self, zoom: int, row: int, col: int) -> bytes:
        """A square of the image, as JPEG.

        Raises:
            TilingError: there is no such square, or the image can't be read.
        """
        with _reading:
            return jpeg(self._deep_image().square(zoom, row, col))

    def mask(self, zoom: int, row: int, col: int, how: Paint) -> bytes:
        """A square of the mask, as PNG.

        Raises:
            TilingError: there is no such square, or the mask can't be read.
        """
        with _reading:
            labels = self._deep_mask().square(zoom, row, col, margin=how.margin, known=self._known())
            if (image := self._outlined(zoom, how)) is None:
                return paint(labels, how)
            numbers = DeepMask(image, self._grid).square(zoom, row, col, margin=how.margin)
            # An object may have grown over pixels of another class, whose colour isn't its own.
            classes = np.where(labels < len(self.run.classes), image.classes[numbers], labels)
            return paint(classes, how, numbers)

    def label_at(self, y: float, x: float) -> int | None:
        return self._deep_mask().label_at(y, x, self._known())

    def object_at(self, y: float, x: float) -> dict[str, Any]:
        """The numbered object under a point of the level, with what was measured of it."""
        return self._shown_objects().at(y, x)

    def thumbnail(self) -> bytes:
        """The overlay at the size of a table's row.

        Raises:
            RunError: there is no overlay, or it is no picture.
        """
        revision = self.run.ledger.revision()
        if self._thumbnail is None or self._thumbnail[0] != revision:
            try:
                self._thumbnail = revision, thumbnail(self.run.overlay_path.read_bytes())
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                raise RunError(
                    f"{self.run.overlay_path} shows nothing ({error}); the same segment command again makes it"
                ) from error
        return self._thumbnail[1]

    def _fold(self) -> tuple[int, LedgerState]:
        """The ledger's state, read again only where it has grown."""
        with self._lock:
            revision = self.run.ledger.revision()
            if self._folded is None or self._folded[0] != revision:
                self._folded = revision, self.run.ledger.fold()
            return self._folded

    @property
    def _tells_no_data(self) -> bool:
        return self.run.fill is not None and len(self.run.classes) <= SHOWN_NO_DATA

    def _known(self) -> NDArray[np.bool_] | None:
        """Tiles whose pixels without a label hold no data; None where nothing lacks data."""
        if not self._tells_no_data:
            return None
        states = self._fold()[1].states
        return np.isin(states, (TileState.DONE, TileState.SKIPPED)).reshape(self.run.plan.shape)

    def _summary(self, state: LedgerState) -> dict[str, Any]:
        times = StageTimes.of(state)
        pending = state.count(TileState.PENDING)
        fresh = state.last_time is not None and time.time() - state.last_time < RUNNING_SECONDS
        return {
            "counts": {kind.name.lower(): state.count(kind) for kind in TileState},
            "tiles": self.run.plan.count,
            "is_complete": state.is_complete,
            "lacking": state.missing,
            "is_running": bool(pending) and fresh,
            "seconds": times.wall,
            "megapixels_per_second": state.pixels / 1e6 / times.wall if times.wall > 0 else 0.0,
            "limit": times.sentence(),
            "last_time": state.last_time,
        }

    def _described(self, index: int, record: TileRecord) -> dict[str, Any]:
        tile = self.run.plan.tile(index)
        return {
            "row": tile.row,
            "col": tile.col,
            "state": record.state.name.lower(),
            "reason": record.reason or "no reason was given",
            "attempts": record.attempts,
            "time": record.time,
        }

    def _deep_image(self) -> DeepImage:
        with self._lock:
            if self._image is None:
                self._source = self.run.open_source()
                self._image = DeepImage(self._source, self.run.card.image.level, self._grid)
            return self._image

    def _deep_mask(self) -> DeepMask:
        with self._lock:
            if self._mask is None:
                self._mask = DeepMask(self.run.open_mask(read_only=True), self._grid)
            return self._mask

    def _shown_objects(self) -> ShownObjects:
        """Of the ledger as it is now."""
        revision, state = self._fold()
        with self._lock:
            if self._objects is None or self._objects[0] != revision:
                self._objects = revision, ShownObjects(self.run, state)
            return self._objects[1]

    def _outlined(self, zoom: int, how: Paint) -> ObjectImage | None:
        """Numbered objects, where their outlines are shown and none is too small for one."""
        return None if how.style != "outline" or zoom > OUTLINED_TO_ZOOM else self._shown_objects().image

    def _slide_problem(self) -> str | None:
        """Reason why the image can't be shown; None where it can."""
        try:
            self._deep_image()
            assert self._source is not None
            level = self._source.levels[self.run.card.image.level]
        except (TilingError, OSError) as error:
            return str(error)
        except IndexError:
            return f"{self.run.card.image.path} has no level {self.run.card.image.level} any more"
        if (level.height, level.width) != self.run.plan.extent:
            return f"{self.run.card.image.path} is another image now: {level.width} x {level.height} px"
        return None

    def _affine(self) -> list[float] | None:
        """From the level's pixels to map coordinates, where the image lies on the earth."""
        if self._source is None or self._source.georeference is None or self._source.georeference.affine is None:
            return None
        a, b, c, d, e, f = self._source.georeference.affine
        base, level = self._source.levels[0], self._source.levels[self.run.card.image.level]
        fx, fy = base.width / level.width, base.height / level.height
        return [a * fx, b * fy, c, d * fx, e * fy, f]


def paint_of(run: ShownRun, labels: Iterator[int], *, safe: bool, outline: bool) -> Paint:
    """Style in which a run's labels are to be shown, from what the page asked for."""
    colors = run.outline_colors() if outline and not safe else [*class_colors(run.run.classes, safe=safe)]
    return Paint(colors, frozenset(labels), "outline" if outline else "fill")


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
