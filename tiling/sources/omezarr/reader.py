"""An OME-Zarr image: boxes of pixels from any of its levels, at one z and t."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.sources.cache import DEFAULT_CACHE_BYTES, SegmentCache
from tiling.sources.facts import FIRST, ImageFacts, Level, Moment, make_levels
from tiling.sources.limits import MAX_BANDS, MAX_DECODED_BYTES, source_errors
from tiling.sources.omezarr.arrays import GuardedStore, OpenArray, fetcher, open_array, open_store, shape_of
from tiling.sources.omezarr.metadata import LevelPlace, Multiscale, find_multiscales
from tiling.sources.series import FileImage, choose_image
from tiling.sources.tiff.segments import Grid
from tiling.storage.place import Place

Pixels = npt.NDArray[np.generic]

_CHUNK_PX = 1024
_SAME_SCALE = 0.05
_RGB = ("red", "green", "blue")


class OmeZarrReader:
    """An open OME-Zarr. Safe to call from several threads at once."""

    def __init__(self, place: Place, store: GuardedStore, images: list[Multiscale], moment: Moment = FIRST) -> None:
        self._store = store
        self.cache = SegmentCache(DEFAULT_CACHE_BYTES)
        with source_errors(str(place)):
            message = _told(store, images) if len(images) > 1 else ()
            series = choose_image(message, moment.series) if message else 0
            if not message:
                moment.expect_one_image()
            image = images[series]
            self._axes = image.axes
            self._levels, size = _levels(store, image)
            first = self._levels[0].array
            sizes = dict(zip(image.axes, first.shape, strict=True))
            moment.expect_in(sizes.get("z", 1), sizes.get("t", 1))
            self._moment = moment
            self._facts = replace(self._describe(image, sizes, size), images=message, series=series)
        # What any image is made of counts, whichever is read: the file's fingerprint is one.
        others = [each for each in images if each is not image]
        self._others = tuple(each.folder + path for each in others for path in each.paths)
        metadata = [*image.documents, *(document for each in others for document in each.documents)]
        documents = b"\n".join((*metadata, *(level.document for level in self._levels)))
        self.identity = hashlib.sha256(documents).hexdigest()

    @classmethod
    def at(cls, place: Place, moment: Moment = FIRST) -> OmeZarrReader | None:
        """The reader of what lies at a place; None where that is no OME-Zarr.

        Raises:
            SourceError: an OME-Zarr that is damaged, over a limit, or of a kind that isn't read.
            StorageError: the object store fails.
        """
        with source_errors(str(place)):
            store = open_store(place)
            images = find_multiscales(fetcher(store))
        if not images:
            store.close()
            return None
        return cls(place, store, images, moment)

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays below the place: the levels', and those of other images."""
        own = tuple(level.array.path for level in self._levels)
        return own + tuple(path for path in dict.fromkeys(self._others) if path not in own)

    def read(self, level: int, box: Box) -> Pixels:
        """Pixels `(y, x, band)` of a box inside the level, decoding only the chunks under it."""
        out = np.empty((*box.shape, len(self._facts.bands)), self._facts.dtype)
        grid = self._grid(level)
        held: list[tuple[int, Box]] = []
        missing: list[tuple[int, Box]] = []
        for index, place in grid.under(box):
            (held if self.cache.holds((level, index)) else missing).append((index, place))
        for run in _runs(missing, grid.cols):
            self._read_run(level, run, box, out)
        for index, place in held:
            cell = self.cache.get((level, index), 0, lambda place=place: self._stored(level, place))
            _paste(out, box, cell, place)
        return out

    def read_mask(self, level: int, box: Box) -> None:
        """OME-Zarr doesn't say which pixels hold data."""

    def chunk_px(self, level: int) -> tuple[int, int]:
        """Whole chunks that make up about 1024 x 1024 px."""
        grid = self._grid(level)
        tall = grid.segment_height * max(1, round(_CHUNK_PX / grid.segment_height))
        wide = grid.segment_width * max(1, round(_CHUNK_PX / grid.segment_width))
        return min(tall, grid.height), min(wide, grid.width)

    def close(self) -> None:
        self.cache.clear()
        self._store.close()

    def _read_run(self, level: int, run: list[tuple[int, Box]], box: Box, out: Pixels) -> None:
        """Read neighbouring chunks with one call, which asks a slow store for them side by side, and keep them."""
        first, last = run[0][1], run[-1][1]
        whole = Box(first.y0, first.x0, last.y1, last.x1)
        pixels = self._stored(level, whole)
        _paste(out, box, pixels, whole)
        for index, place in run:
            cell = pixels[place.relative_to(whole).slices]
            if cell.nbytes <= self.cache.limit_bytes:
                self.cache.get((level, index), cell.nbytes, cell.copy)

    def _stored(self, level: int, box: Box) -> Pixels:
        """A box as the array holds it, as `(y, x, band)`."""
        array = self._levels[level].array
        sizes = dict(zip(self._axes, array.shape, strict=True))
        top = dict(zip(self._axes, self._levels[0].array.shape, strict=True))
        places: dict[str, slice | int] = {"y": slice(box.y0, box.y1), "x": slice(box.x0, box.x1), "c": slice(None)}
        for axis, wanted in (("z", self._moment.z), ("t", self._moment.t)):
            if axis in sizes:
                places[axis] = min(sizes[axis] - 1, wanted * sizes[axis] // top[axis])
        pixels = np.asarray(array[tuple(places[axis] for axis in self._axes)])
        order = "".join(axis for axis in self._axes if axis in "cyx")
        if "c" not in order:
            pixels, order = pixels[np.newaxis], "c" + order
        return np.ascontiguousarray(pixels.transpose([order.index(axis) for axis in "yxc"]), self._facts.dtype)

    def _grid(self, level: int) -> Grid:
        array = self._levels[level].array
        y, x = self._axes.index("y"), self._axes.index("x")
        return Grid(array.shape[y], array.shape[x], array.chunks[y], array.chunks[x])

    def _describe(self, image: Multiscale, sizes: dict[str, int], size: PixelSize | None) -> ImageFacts:
        count, first = sizes.get("c", 1), self._levels[0].array
        if count > MAX_BANDS:
            raise SourceError(f"{count} channels; at most {MAX_BANDS} are read")
        y, x = image.axes.index("y"), image.axes.index("x")
        shapes = [(level.array.shape[y], level.array.shape[x]) for level in self._levels]
        grids = [self._grid(level) for level in range(len(self._levels))]
        chunk_bytes = max(grid.segment_height * grid.segment_width for grid in grids) * count * first.dtype.itemsize
        if chunk_bytes > MAX_DECODED_BYTES:
            raise SourceError(
                f"all channels of one chunk hold {chunk_bytes} bytes, more than {MAX_DECODED_BYTES}; write smaller ones"
            )
        places = [image.places.get(level.array.path.removeprefix(image.folder)) for level in self._levels]
        origins = tuple((0.0, 0.0) if place is None else place.origin_px for place in places)
        return ImageFacts(
            f"ome-zarr-{image.version}",
            _bands(image.channel_names, count, first.dtype),
            first.dtype.newbyteorder("="),
            tuple(map(_as_told, make_levels(shapes, size), places)),
            "rgb" if count == 3 and first.dtype == np.uint8 else "min-is-black",
            memory_bytes=DEFAULT_CACHE_BYTES + 3 * chunk_bytes,
            focal_planes=sizes.get("z", 1),
            times=sizes.get("t", 1),
            origins_px=origins if any(any(origin) for origin in origins) else (),
        )


def _told(store: GuardedStore, images: list[Multiscale]) -> tuple[FileImage, ...]:
    """Name and size of each of several images."""
    message: list[FileImage] = []
    for image in images:
        y, x = image.axes.index("y"), image.axes.index("x")
        ends = {0, len(image.paths) - 1}
        shapes = {at: shape_of(store, image.folder + image.paths[at], len(image.axes)) for at in sorted(ends)}
        first = max(shapes, key=lambda at: shapes[at][x])
        message.append(FileImage(image.name, shapes[first][y], shapes[first][x], image.pixel_sizes[first]))
    return tuple(message)


def _levels(store: GuardedStore, image: Multiscale) -> tuple[list[OpenArray], PixelSize | None]:
    """The arrays that are downsamples of the finest, largest first, wherever they stand; what its pixel measures.

    Raises:
        SourceError: of two arrays, the one of more pixels is said to have larger ones.
    """
    y, x = image.axes.index("y"), image.axes.index("x")
    stored = [open_array(store, image.folder + path, len(image.axes)) for path in image.paths]
    order = sorted(range(len(stored)), key=lambda at: -stored[at].array.shape[x])
    finest = order[0]
    for at in order[1:]:
        if stored[at].array.shape[x] < stored[finest].array.shape[x] and image.sides[at][1] < image.sides[finest][1]:
            raise SourceError(
                f"level {image.paths[finest]!r} has more pixels than {image.paths[at]!r}, and larger ones "
                f"({image.sides[finest][1]:g} against {image.sides[at][1]:g}): the OME-Zarr contradicts itself; "
                "correct its scales"
            )
    found = [stored[at] for at in order]
    levels = found[:1]
    base = found[0].array
    for each in found[1:]:
        height, width = each.array.shape[y], each.array.shape[x]
        down_y, down_x = base.shape[y] / height, base.shape[x] / width
        same = each.array.dtype == base.dtype and _others(each, image.axes) == _others(found[0], image.axes)
        smaller = width < levels[-1].array.shape[x] and height <= levels[-1].array.shape[y]
        if (
            same
            and smaller
            and abs(down_y - down_x) <= 0.02 * max(down_y, down_x) + max(down_y / height, down_x / width)
        ):
            levels.append(each)
    return levels, image.pixel_sizes[finest]


def _as_told(level: Level, place: LevelPlace | None) -> Level:
    """A level with the pixel size that its own scale says, where that fits its shape: sides are rounded, scales not."""
    message, known = None if place is None else place.pixel_size, level.pixel_size
    if message is None or known is None or message.unit != known.unit:
        return level
    near = all(abs(a / b - 1) <= _SAME_SCALE for a, b in ((message.y, known.y), (message.x, known.x)))
    return replace(level, pixel_size=message) if near else level


def _others(level: OpenArray, axes: str) -> list[int]:
    """Sides that a level shares with the first: channels and times."""
    return [side for axis, side in zip(axes, level.array.shape, strict=True) if axis in "ct"]


def _bands(names: tuple[str, ...], count: int, dtype: np.dtype[np.generic]) -> tuple[str, ...]:
    if len(names) == count and all(names) and len(set(names)) == count:
        return names
    if count == 3 and dtype == np.uint8:
        return _RGB
    return ("gray",) if count == 1 else tuple(str(number + 1) for number in range(count))


def _runs(cells: list[tuple[int, Box]], cols: int) -> Iterator[list[tuple[int, Box]]]:
    """Cells that follow each other in one row of the grid."""
    run: list[tuple[int, Box]] = []
    for cell in cells:
        if run and (cell[0] != run[-1][0] + 1 or cell[0] % cols == 0):
            yield run
            run = []
        run.append(cell)
    if run:
        yield run


def _paste(out: Pixels, box: Box, pixels: Pixels, place: Box) -> None:
    common = place.intersect(box)
    out[common.relative_to(box).slices] = pixels[common.relative_to(place).slices]
