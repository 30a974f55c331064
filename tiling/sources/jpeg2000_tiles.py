"""Tiles of a JPEG 2000 codestream (ITU-T T.800), each of which decodes on its own.

A tile's parts are put behind the main header, whose SIZ marker then speaks of that tile alone: at its own place on the
reference grid, so that it decodes to what the whole decodes to there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import imagecodecs
import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.codestream import jpeg2000_codestream
from tiling.sources.file import ImageFile
from tiling.sources.limits import MAX_DECODED_BYTES, MAX_ENCODED_BYTES

Pixels = npt.NDArray[np.generic]

_HEADER_BYTES = 256 * 1024
_MOST_TILES, _MOST_PARTS = 65_535, 262_144
_WORKING_FACTOR = 5  # of a tile's own bytes, while it is decoded
_SOC, _SIZ, _EOC = b"\xff\x4f", b"\xff\x51", b"\xff\xd9"
_SOT, _SOT_BYTES = 0xFF90, 12
# COD, COC, QCD, QCC, RGN and POC say how tiles are coded; TLM, PLM, CRG and COM are not needed.
_KEPT, _DROPPED = {0xFF52, 0xFF53, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F}, {0xFF55, 0xFF57, 0xFF63, 0xFF64}
_OTHER_COLOURS = (b"pclr", b"cmap", b"cdef")

Parts = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Tiles:
    """Places of a file's tiles, in the image and in the file.

    Attributes:
        shape: of the image.
        tile: height and width of a tile.
        corner: of the first tile, in pixels of the image; never greater than 0.
        components: bands, 1 or 3.
        dtype: of a value.
        siz: the SIZ marker with its segment.
        header: the other segments of the main header that tiles need.
        parts: offset and length in the file of each part of a tile, by the tile's number.
    """

    shape: tuple[int, int]
    tile: tuple[int, int]
    corner: tuple[int, int]
    components: int
    dtype: np.dtype[np.generic]
    siz: bytes
    header: bytes
    parts: tuple[Parts, ...] = ()

    @property
    def across(self) -> int:
        """Number of tiles that lie side by side."""
        return -(-(self.shape[1] - self.corner[1]) // self.tile[1])

    @property
    def count(self) -> int:
        return -(-(self.shape[0] - self.corner[0]) // self.tile[0]) * self.across

    @property
    def tile_bytes(self) -> int:
        """The most that a decoded tile takes."""
        tall, wide = (min(side, whole) for side, whole in zip(self.tile, self.shape, strict=True))
        return tall * wide * self.components * self.dtype.itemsize

    @property
    def working_bytes(self) -> int:
        """The most that decoding a tile takes."""
        encoded = max(sum(length for _, length in parts) for parts in self.parts)
        return _WORKING_FACTOR * self.tile_bytes + 2 * encoded

    def box(self, number: int) -> Box:
        """A tile's place in the image."""
        row, col = divmod(number, self.across)
        top, left = self.corner[0] + row * self.tile[0], self.corner[1] + col * self.tile[1]
        return Box(top, left, top + self.tile[0], left + self.tile[1]).intersect(Box(0, 0, *self.shape))

    def under(self, box: Box) -> list[int]:
        """Numbers of the tiles that a box of the image touches."""
        (top, left), (tall, wide) = self.corner, self.tile
        rows = range((box.y0 - top) // tall, (box.y1 - 1 - top) // tall + 1)
        cols = range((box.x0 - left) // wide, (box.x1 - 1 - left) // wide + 1)
        return [row * self.across + col for row in rows for col in cols]

    def decode(self, file: ImageFile, number: int) -> Pixels:
        """The pixels `(y, x, band)` of a tile."""
        stream = [_SOC, self._siz_of(number), self.header]
        for offset, length in self.parts[number]:
            part = file.read(length, offset)
            if len(part) != length:
                raise SourceError(f"JPEG 2000 tile {number} is cut short; restore the file")
            stream += [part[:4], struct.pack(">HI", 0, length), part[10:]]
        pixels: Pixels = imagecodecs.jpeg2k_decode(b"".join([*stream, _EOC]))
        pixels = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
        expected = (*self.box(number).shape, self.components)
        if pixels.shape != expected or pixels.dtype != self.dtype:
            raise SourceError(
                f"JPEG 2000 tile {number} decodes to {pixels.dtype} of shape {pixels.shape}, the header says "
                f"{self.dtype} of {expected}: the file is damaged"
            )
        return pixels

    def _siz_of(self, number: int) -> bytes:
        box, (row, col) = self.box(number), divmod(number, self.across)
        _, _, x0, y0, wide, tall, tile_x, tile_y = struct.unpack_from(">8I", self.siz, 6)
        place = (x0 + box.x1, y0 + box.y1, x0 + box.x0, y0 + box.y0)
        return (
            self.siz[:6]
            + struct.pack(">8I", *place, wide, tall, tile_x + col * wide, tile_y + row * tall)
            + (self.siz[38:])
        )


def find_tiles(file: ImageFile) -> Tiles | None:
    """The tiles of a JPEG 2000 file; None where it has to be decoded whole: of one tile, or coded in other ways.

    Raises:
        SourceError: tiles are missing, larger than the limits, or named in a way that no writer does.
    """
    if file.is_slow:
        return None  # looking for the parts would cost a round trip each
    head = file.read(_HEADER_BYTES, 0)
    try:
        start = jpeg2000_codestream(head)
        found = _laid_out(head[start:], is_plain=not any(colour in head[:start] for colour in _OTHER_COLOURS))
    except (SourceError, struct.error):
        return None
    if found is None:
        return None
    tiles, first = found
    return _with_parts(tiles, file, start + first)


def _laid_out(stream: bytes, *, is_plain: bool) -> tuple[Tiles, int] | None:
    """The tiles of a codestream by its main header, and where that ends."""
    siz_bytes = struct.unpack_from(">H", stream, 4)[0]
    siz = stream[2 : 4 + siz_bytes]
    x1, y1, x0, y0, wide, tall, tile_x, tile_y = struct.unpack_from(">8I", siz, 6)
    components = struct.unpack_from(">H", siz, 38)[0]
    layout = siz[40 : 40 + 3 * components]
    if not is_plain or stream[:4] != _SOC + _SIZ or components not in {1, 3}:
        return None
    depth = layout[0]
    if depth >= 16 or layout != bytes((depth, 1, 1)) * components:  # signed, deeper, or of parts of the size
        return None
    if not (x0 < x1 and y0 < y1 and tile_x <= x0 < tile_x + wide and tile_y <= y0 < tile_y + tall):
        return None
    header = _header(stream, 4 + siz_bytes)
    if header is None:
        return None
    dtype = np.dtype(np.uint8 if depth < 8 else np.uint16)
    shape, corner = (y1 - y0, x1 - x0), (tile_y - y0, tile_x - x0)
    tiles = Tiles(shape, (tall, wide), corner, components, dtype, siz, header[0])
    is_bounded = 1 < tiles.count <= _MOST_TILES and tiles.tile_bytes * _WORKING_FACTOR <= MAX_DECODED_BYTES
    return (tiles, header[1]) if is_bounded else None


def _header(stream: bytes, at: int) -> tuple[bytes, int] | None:
    """Segments of the main header that tiles need, and where it ends; None where it holds what isn't known."""
    kept: list[bytes] = []
    while True:
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == _SOT:
            return b"".join(kept), at
        segment = stream[at : at + 2 + length]
        if len(segment) != 2 + length or marker not in _KEPT | _DROPPED:
            return None
        if marker in _KEPT:
            kept.append(segment)
        at += 2 + length


def _with_parts(tiles: Tiles, file: ImageFile, at: int) -> Tiles:
    """The tiles with where their parts lie in the file."""
    parts: list[list[tuple[int, int]]] = [[] for _ in range(tiles.count)]
    for _ in range(_MOST_PARTS):
        sot = file.read(_SOT_BYTES, at)
        if sot[:2] == _EOC:
            break
        if len(sot) < _SOT_BYTES:
            raise SourceError("the JPEG 2000 file is cut short: its end marker is missing; restore it")
        marker, _, number, length = struct.unpack_from(">HHHI", sot)
        length = length or file.size_bytes - at - len(_EOC)
        if marker != _SOT or number >= tiles.count or not _SOT_BYTES < length <= MAX_ENCODED_BYTES:
            raise SourceError(f"the JPEG 2000 file is damaged: no tile at byte {at}; restore it")
        if at + length > file.size_bytes:
            raise SourceError(f"the JPEG 2000 file is cut short in tile {number}; restore it")
        parts[number].append((at, length))
        at += length
    else:
        raise SourceError(f"the JPEG 2000 file has more than {_MOST_PARTS} parts of tiles; convert to a tiled TIFF")
    for number, each in enumerate(parts):
        if not each or sum(length for _, length in each) > MAX_ENCODED_BYTES:
            what = "is missing" if not each else f"takes more than {MAX_ENCODED_BYTES} bytes"
            raise SourceError(f"JPEG 2000 tile {number} of {tiles.count} {what}; restore the file")
    return Tiles(
        tiles.shape,
        tiles.tile,
        tiles.corner,
        tiles.components,
        tiles.dtype,
        tiles.siz,
        tiles.header,
        tuple(tuple(each) for each in parts),
    )
