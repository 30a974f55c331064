"""Grid of the strips or tiles that cover one plane of a TIFF page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tifffile import TiffPage

from tiling.errors import SourceError
from tiling.geometry import Box


@dataclass(frozen=True, slots=True)
class Grid:
    """Grid in which segments tile one plane of samples. All in pixels."""

    height: int
    width: int
    segment_height: int
    segment_width: int

    @property
    def rows(self) -> int:
        return -(-self.height // self.segment_height)

    @property
    def cols(self) -> int:
        return -(-self.width // self.segment_width)

    def under(self, box: Box) -> Iterator[tuple[int, Box]]:
        """Number and place of every segment that touches a box inside the plane, row by row."""
        for row in range(box.y0 // self.segment_height, -(-box.y1 // self.segment_height)):
            for col in range(box.x0 // self.segment_width, -(-box.x1 // self.segment_width)):
                yield row * self.cols + col, self.place(row, col)

    def place(self, row: int, col: int) -> Box:
        """The place of a segment inside the plane."""
        y, x = row * self.segment_height, col * self.segment_width
        return Box(y, x, min(y + self.segment_height, self.height), min(x + self.segment_width, self.width))


def grid_of(page: TiffPage) -> Grid:
    """The grid of a page; `SourceError` where the page or its segments are empty."""
    height, width = int(page.imagelength), int(page.imagewidth)
    if height < 1 or width < 1:
        raise SourceError(f"image of {height} x {width} px is empty")
    if page.is_tiled:
        tall, wide = int(page.tilelength), int(page.tilewidth)
    else:
        tall, wide = int(page.rowsperstrip), width
    if tall < 1 or wide < 1:
        raise SourceError(f"strips or tiles of {tall} x {wide} px are empty: the file is damaged")
    return Grid(height, width, tall, wide)


def depth_of(page: TiffPage) -> int:
    """Layers of segments in a volumetric page, of which the first is read."""
    depth, tile_depth = int(page.imagedepth), int(page.tiledepth) if page.is_tiled else 1
    if depth < 1 or tile_depth < 1:
        raise SourceError(f"volume of {depth} layers in tiles of {tile_depth} is empty: the file is damaged")
    if tile_depth > 1:
        raise SourceError(f"tiles of {tile_depth} layers are not supported; convert to one layer per page")
    return -(-depth // tile_depth)
