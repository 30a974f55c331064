"""JPEG 2000 image of several tiles: a box of pixels costs the tiles under it alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tiling.geometry import Box
from tiling.sources.cache import SegmentCache
from tiling.sources.facts import ImageFacts, make_levels
from tiling.sources.file import ImageFile
from tiling.sources.jpeg2000_place import jpeg2000_georeference
from tiling.sources.jpeg2000_tiles import Tiles
from tiling.sources.tiff.georeference import ground_pixel_size

Pixels = npt.NDArray[np.generic]

CACHE_BYTES = 48 * 1024**2
"""Two rows of a Sentinel-2 band's tiles, so that neighbouring reads decode none twice."""
_CHUNK_PX = 1024


class Jpeg2000Reader:
    """A JPEG 2000 file whose tiles are decoded as they are read. Safe to call from several threads at once."""

    def __init__(self, file: ImageFile, tiles: Tiles) -> None:
        self._file, self._tiles = file, tiles
        self.cache = SegmentCache(CACHE_BYTES)
        place = jpeg2000_georeference(file)
        self._facts = ImageFacts(
            "jpeg2000",
            ("gray",) if tiles.components == 1 else ("red", "green", "blue"),
            tiles.dtype,
            make_levels([tiles.shape], None if place is None else ground_pixel_size(place)),
            "min-is-black" if tiles.components == 1 else "rgb",
            georeference=place,
            memory_bytes=file.memory_bytes + max(CACHE_BYTES, tiles.tile_bytes) + tiles.working_bytes,
        )

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    def read(self, level: int, box: Box) -> Pixels:
        """Pixels `(y, x, band)` of a box inside the image."""
        out = np.empty((*box.shape, self._tiles.components), self._tiles.dtype)
        for number in self._tiles.under(box):
            place = self._tiles.box(number)
            shared = place.intersect(box)
            tile = self.cache.get(number, self._tiles.tile_bytes, lambda at=number: self._tiles.decode(self._file, at))
            out[shared.translate(-box.y0, -box.x0).slices] = tile[shared.translate(-place.y0, -place.x0).slices]
        return out

    def read_mask(self, level: int, box: Box) -> None:
        """Nothing: the file doesn't say which pixels hold data."""

    def chunk_px(self, level: int) -> tuple[int, int]:
        """Whole tiles that make up about 1024 x 1024 px."""
        tall, wide = (
            min(whole, side * max(1, round(_CHUNK_PX / side)))
            for side, whole in zip(self._tiles.tile, self._tiles.shape, strict=True)
        )
        return tall, wide

    def close(self) -> None:
        self.cache.clear()
        self._file.close()
