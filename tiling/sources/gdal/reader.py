"""Rasters of formats that GDAL alone reads: ERDAS .img, netCDF, ENVI and others, through a process of its own."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.facts import FIRST, Georeference, ImageFacts, Moment, known_scales, make_levels
from tiling.sources.gdal.formats import GdalFormat, files_beside
from tiling.sources.gdal.netcdf_length import netcdf_length
from tiling.sources.gdal.process import LIBRARY_BYTES, MEMORY_BYTES, GdalProcess
from tiling.sources.limits import MAX_BANDS, MAX_SIDE_PX, source_errors
from tiling.sources.series import FileImage, choose_image
from tiling.sources.tiff.georeference import ground_pixel_size

Pixels = npt.NDArray[np.generic]

_CHUNK_PX = 1024
_PIECE_BYTES = 16 * 1024**2
"""Bytes of pixels that the process is asked for at once."""
_RGB = ("red", "green", "blue")
_MOST_LETTERS = 80
_NUMBERED = re.compile(r"(?:layer|band|undefined|palette)[ _]?\d*", re.IGNORECASE)
"""Names that GDAL's drivers give bands that have none."""


class GdalReader:
    """An open raster. Safe to call from several threads at once.

    A process that dies or takes too long fails the read that it was busy with; the next read starts another.
    """

    def __init__(self, path: Path, known: GdalFormat, moment: Moment = FIRST) -> None:
        self._path, self._known = path, known
        self._lock = threading.Lock()
        self._process: GdalProcess | None = None
        self._is_closed = False
        self._name, self._series = str(path), 0
        try:
            with source_errors(str(path)):
                if "\n" in self._name or '"' in self._name:
                    raise SourceError("its path holds a quote or a line break, which names for GDAL can't; rename it")
                moment.expect_in(1, 1)
                if known.name == "netcdf":
                    _expect_whole(path)
                self._process = GdalProcess(path, known.driver)
                images = self._choose(self._process, moment)
                self._described = self._process.ask({"do": "open", "name": self._name})[0]
                _expect_own(path, self._described["files"])
                self._facts = _facts(known, self._described, images, self._series)
                if known.header is not None:
                    _expect_pixels(path, self._described)
        except SourceError:
            self.close()
            raise

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    @property
    def process(self) -> GdalProcess | None:
        """The process that reads, while there is one."""
        return self._process

    def read(self, level: int, box: Box) -> Pixels:
        """Pixels `(y, x, band)` of a box inside the level."""
        facts = self._facts
        out = np.empty((*box.shape, len(facts.bands)), facts.dtype)
        for piece in _pieces(box, len(facts.bands) * facts.dtype.itemsize):
            out[piece.relative_to(box).slices] = self._piece(level, piece, out.shape[2:], facts.dtype, mask=False)
        return out

    def read_mask(self, level: int, box: Box) -> npt.NDArray[np.bool_] | None:
        """Mask of the pixels of a box that hold data; None where the file has neither mask nor alpha."""
        if not self._facts.has_mask:
            return None
        out = np.empty(box.shape, np.bool_)
        for piece in _pieces(box, 1):
            out[piece.relative_to(box).slices] = self._piece(level, piece, (), np.dtype(np.bool_), mask=True)
        return out

    def chunk_px(self, level: int) -> tuple[int, int]:
        whole = self._facts.levels[level]
        return min(_CHUNK_PX, whole.height), min(_CHUNK_PX, whole.width)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.close()

    def _piece(self, level: int, box: Box, more: tuple[int, ...], dtype: np.dtype[Any], *, mask: bool) -> Pixels:
        with self._lock:
            process = self._running()
            _, data = process.ask({"do": "read", "level": level, "box": [box.y0, box.x0, box.y1, box.x1], "mask": mask})
        if len(data) != box.area * math.prod(more) * dtype.itemsize:
            raise SourceError(f"GDAL gives {len(data)} bytes for {box.height} x {box.width} px: it is damaged")
        return np.frombuffer(data, dtype).reshape(*box.shape, *more)

    def _running(self) -> GdalProcess:
        """The process, with the image open; caller holds the lock."""
        if self._is_closed:
            raise SourceError("it is closed")
        if self._process is None or not self._process.is_open:
            if self._process is not None:
                self._process.close()
            process = GdalProcess(self._path, self._known.driver)
            try:
                described = process.ask({"do": "open", "name": self._name})[0]
                if json.dumps(described) != json.dumps(self._described):
                    raise SourceError("the file changed after it was opened; start again")
            except SourceError:
                process.close()
                raise
            self._process = process
        return self._process

    def _choose(self, process: GdalProcess, moment: Moment) -> tuple[FileImage, ...]:
        """The images of a file that has several, of which one is chosen."""
        found: list[list[Any]] = process.ask({"do": "images"})[0]["images"]
        if not found:
            moment.expect_one_image()
            return ()
        images = [FileImage(_short(name, self._path), int(height), int(width)) for name, height, width in found]
        self._series = choose_image(images, moment.series)
        self._name = str(found[self._series][0])
        return tuple(images)


def _expect_whole(path: Path) -> None:
    """Refuse a netCDF that was cut, of which the library reads zeros."""
    with path.open("rb") as file:
        try:
            whole = netcdf_length(file)
        except EOFError as error:
            raise SourceError(f"{error}: it was cut; copy it again") from error
        except (ValueError, LookupError, OverflowError):
            return  # what it is GDAL says
    if (size := path.stat().st_size) < whole:
        raise SourceError(f"it holds {size} of {whole} bytes, and what is missing would be read as 0; copy it again")


def _expect_pixels(path: Path, described: dict[str, Any]) -> None:
    """Refuse raw pixels that were cut, of which GDAL reads zeros too; what is packed may be shorter."""
    height, width = described["shapes"][0]
    bits = [
        own or 8 * np.dtype(dtype).itemsize for own, dtype in zip(described["bits"], described["dtypes"], strict=True)
    ]
    least, size = sum(height * width * each // 8 for each in bits), path.stat().st_size
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    if size < least and not is_packed:
        raise SourceError(
            f"it holds {size} bytes, and the pixels that its header says take {least}: what is missing would be read "
            "as 0; copy it again, or correct the header"
        )


def _expect_own(path: Path, files: list[str]) -> None:
    """Refuse an image with other files than those that count into its fingerprint."""
    own = {each.resolve() for each in (path, *files_beside(path))}
    for file in files:
        if Path(file).resolve() not in own:
            raise SourceError(f"it leads to {file!r}, which is not called like it; convert it to a GeoTIFF")


def _facts(known: GdalFormat, described: dict[str, Any], images: tuple[FileImage, ...], series: int) -> ImageFacts:
    """Hold what the process says against the limits."""
    shapes: list[tuple[int, int]] = [(int(height), int(width)) for height, width in described["shapes"]]
    types, is_palette = sorted(set(described["dtypes"])), bool(described["is_palette"])
    if not types or len(described["dtypes"]) > MAX_BANDS:
        raise SourceError(f"it has {len(described['dtypes'])} bands; 1 to {MAX_BANDS} are read")
    if len(types) > 1 or np.dtype(types[0]).kind not in "iuf":
        raise SourceError(f"its values are {' and '.join(types)}; convert them to one type of integers or floats")
    if any(min(shape) < 1 or max(shape) > MAX_SIDE_PX for shape in shapes):
        raise SourceError(f"its levels have sides below 1 px or over {MAX_SIDE_PX} px: it is damaged")
    place = _place(described)
    names = _RGB if is_palette else _names(described)
    return ImageFacts(
        known.name,
        names,
        np.dtype(np.uint8 if is_palette else types[0]),
        make_levels(_smaller(shapes), None if place is None else ground_pixel_size(place)),
        "palette" if is_palette else "rgb" if names[:3] == _RGB else "min-is-black",
        nodata=None if is_palette else _nodata(described["nodata"]),
        georeference=place,
        has_alpha=bool(described["has_alpha"]),
        memory_bytes=MEMORY_BYTES + LIBRARY_BYTES + 2 * _PIECE_BYTES,
        has_mask=bool(described["has_mask"]),
        images=images,
        series=series,
        scales=()
        if is_palette
        else known_scales([(float(scale), float(offset)) for scale, offset in described["scales"]]),
    )


def _names(described: dict[str, Any]) -> tuple[str, ...]:
    """Names of bands: what the file calls them, or their colours, or their numbers."""
    count = len(described["names"])
    for names in (described["names"], described["colours"]):
        shown = tuple(" ".join(str(name or "").split()) for name in names)
        is_named = all(name and name.isprintable() and len(name) <= _MOST_LETTERS for name in shown)
        if is_named and len(set(shown)) == count and not all(map(_NUMBERED.fullmatch, shown)):
            return shown
    return ("gray",) if count == 1 else tuple(str(number + 1) for number in range(count))


def _nodata(values: list[float | None]) -> float | None:
    first = values[0]
    if len({str(value) for value in values}) > 1:
        shown = ", ".join("none" if value is None else f"{value:g}" for value in values[:8])
        raise SourceError(f"its bands have several values for no data ({shown}); convert it to a GeoTIFF with one")
    return None if first is None else float(first)


def _smaller(shapes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Levels of which each is smaller than the one before; what follows another is no pyramid's."""
    for number, (finer, coarser) in enumerate(pairwise(shapes)):
        if coarser[0] > finer[0] or coarser[1] >= finer[1]:
            return shapes[: number + 1]
    return shapes


def _place(described: dict[str, Any]) -> Georeference | None:
    """Place on the earth; None where the file doesn't say so."""
    wkt, code, affine = described["wkt"], described["epsg"], described["transform"]
    points = tuple(tuple(float(number) for number in point) for point in described["points"])
    if affine is not None and not _is_sound(affine):
        affine = None
    if wkt is None and affine is None and not points:
        return None
    a, b, c, d, e, f = affine or (0.0,) * 6
    return Georeference(
        None if code is None else f"EPSG:{code}", None if affine is None else (a, b, c, d, e, f), wkt, points
    )


def _is_sound(affine: list[float]) -> bool:
    """True of numbers that place pixels with an area."""
    a, b, _, d, e, _ = affine
    return all(map(math.isfinite, affine)) and a * e - b * d != 0


def _short(name: str, path: Path) -> str:
    """An image's name in its file, without the file's own."""
    return name.rpartition(str(path))[2].strip('":/') or name


def _pieces(box: Box, pixel_bytes: int) -> Iterator[Box]:
    """Parts of a box of at most so many bytes, from top to bottom; single rows where one is more than that."""
    wide = min(box.width, max(1, _PIECE_BYTES // pixel_bytes))
    tall = max(1, _PIECE_BYTES // (pixel_bytes * wide))
    for y in range(box.y0, box.y1, tall):
        for x in range(box.x0, box.x1, wide):
            yield Box(y, x, min(y + tall, box.y1), min(x + wide, box.x1))
