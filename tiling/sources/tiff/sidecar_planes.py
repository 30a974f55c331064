"""Pixels that lie in a file beside a TIFF: the mask of GDAL's `.msk`, the coarser levels of its `.ovr`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from tifffile import TiffFile, TiffPage

from tiling.errors import SourceError
from tiling.sources.file import open_file
from tiling.sources.limits import MAX_LEVELS, MAX_PYRAMID_PAGES, source_errors
from tiling.sources.tiff.directory import Chain, Directory, TiffLayout
from tiling.sources.tiff.plane import Plane
from tiling.sources.tiff.samples import interpret
from tiling.storage.place import Place

_SAMPLES, _BITS, _SAMPLE_FORMAT, _PHOTOMETRIC = 277, 258, 339, 262
_LEAST_RATIO = 1.2


def sidecar_masks(place: Place, sizes: list[tuple[int, int]]) -> list[Plane | None]:
    """The mask of each level, by its size.

    Raises:
        SourceError: none of the file's pages is of the image's own size, so that it is another image's mask.
    """
    found = {plane.size_px: plane for _, plane in reversed([*_pages(place)]) if plane.band_count == 1}
    if sizes[0] not in found:
        raise SourceError(
            f"{place.name} beside it holds no mask of {sizes[0][0]} x {sizes[0][1]} px, so nothing says which pixels "
            f"hold data; remove it, or write it anew"
        )
    return [found.get(size) for size in sizes]


def sidecar_levels(place: Place, base: Directory) -> list[tuple[Plane, Plane | None]]:
    """Coarser levels, largest first, each with its mask where there is one; pages that are no smaller copy are none."""
    pages = [*_pages(place)]
    masks = {plane.size_px: plane for directory, plane in pages if directory.is_mask}
    levels = [plane for directory, plane in pages if _is_smaller(directory, base)]
    return [(plane, masks.get(plane.size_px)) for plane in sorted(levels, key=lambda plane: -plane.size_px[1])]


def _pages(place: Place) -> Iterator[tuple[Directory, Plane]]:
    """The pages of a TIFF; one that can't be read is none."""
    file = open_file(place)
    with source_errors(f"{place.name} beside it"):
        chain = Chain.from_layout(TiffLayout.from_file(file))
        with TiffFile(file.stream(), is_ndpi=False, is_lsm=False, is_scanimage=False, is_stk=False) as tif:
            for index in range(min(len(chain), MAX_PYRAMID_PAGES, 2 * MAX_LEVELS)):
                with suppress(SourceError):
                    directory = chain[index]
                    tif.filehandle.seek(directory.offset)
                    page = TiffPage(tif, 0)
                    yield directory, Plane(page, directory, interpret(page, directory))
        file.expect_unbroken()


def _is_smaller(page: Directory, base: Directory) -> bool:
    """True if a page is the image at fewer pixels: GDAL rounds sides up, so that proportions differ by a pixel."""
    if page.is_mask or not 0 < page.width < base.width or not 0 < page.height <= base.height:
        return False
    ratio = base.width / page.width
    return (
        ratio >= _LEAST_RATIO
        and abs(page.height - base.height / ratio) <= max(1.5, 0.01 * page.height)
        and all(page.number(code, 1) == base.number(code, 1) for code in (_BITS, _SAMPLES, _SAMPLE_FORMAT))
        and _colors(page) == _colors(base)
    )


def _colors(directory: Directory) -> int:
    """The photometric interpretation; YCbCr (6) counts as RGB (2), which it is decoded to."""
    photometric = directory.number(_PHOTOMETRIC, -1)
    return 2 if photometric == 6 else photometric
