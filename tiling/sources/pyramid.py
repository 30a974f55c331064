"""Which directories of a TIFF file are levels of its pyramid."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.sources.directory import Chain, Directory, read_directory
from tiling.sources.limits import MAX_LEVELS, MAX_PYRAMID_PAGES

_SUBFILE_TYPE, _SAMPLES = 254, 277
_MASK_BIT = 4


def find_levels(
    chain: Chain, pages: tuple[int, ...], smaller: tuple[tuple[int, ...], ...] = ()
) -> list[list[Directory]]:
    """Directories of levels 1 and up, each with one directory per plane, largest first.

    `smaller` are pages that the metadata names as levels.
    """
    base = [chain[index] for index in pages]
    named = [[chain[index] for index in level] for level in smaller]
    levels = [found for found in (*named, *_candidates(chain, pages, base)) if _is_level(found, base)]
    levels.sort(key=lambda directories: -directories[0].width)
    unique: list[list[Directory]] = []
    for directories in levels:
        previous = unique[-1][0] if unique else base[0]
        if directories[0].width < previous.width and directories[0].height <= previous.height:
            unique.append(directories)
    return unique[:MAX_LEVELS]


def find_masks(chain: Chain, sizes: list[tuple[int, int]]) -> list[Directory | None]:
    """The directory of each level's mask, by its size; None where a level has none.

    A mask says which pixels hold data (TIFF 6.0, NewSubfileType bit 2; GDAL writes one per level).
    """
    found: dict[tuple[int, int], Directory] = {}
    for index in range(1, min(len(chain), MAX_PYRAMID_PAGES)):
        with suppress(SourceError):
            directory = chain[index]
            if directory.number(_SUBFILE_TYPE, 0) & _MASK_BIT and directory.number(_SAMPLES, 1) == 1:
                found.setdefault((directory.height, directory.width), directory)
    return [found.get(size) for size in sizes]


def _candidates(chain: Chain, pages: tuple[int, ...], base: list[Directory]) -> Iterator[list[Directory]]:
    """SubIFDs of the bands' pages and, where all bands are in one page, the other pages of the file.

    One that can't be read is no level, and no reason to refuse the image.
    """
    offsets = [tuple(int(offset) for offset in _subifds(directory)) for directory in base]
    places = list(zip(*offsets, strict=False))
    if len(base) == 1:
        others = (index for index in range(min(len(chain), MAX_PYRAMID_PAGES)) if index not in pages)
        places += [(chain.offsets[index],) for index in others]
    for place in places:
        with suppress(SourceError):
            yield [read_directory(chain.layout, offset) for offset in place]


def _subifds(directory: Directory) -> npt.NDArray[np.generic]:
    offsets = directory.values(330)
    return np.empty(0, np.uint64) if offsets is None else offsets[:MAX_LEVELS]


def _is_level(directories: list[Directory], base: list[Directory]) -> bool:
    """Whether directories are a smaller copy of level 0: same samples, same proportions, not a mask.

    A level either says that it is a reduced image or is tiled like level 0; the thumbnails, labels and macro
    photographs of slides are stripped.
    """
    first, level = base[0], directories[0]
    same = all(
        [d.number(code, 1) for code in (258, 277, 339)] == [first.number(code, 1) for code in (258, 277, 339)]
        and _colors(d) == _colors(first)
        and (d.height, d.width) == (level.height, level.width)
        for d in directories
    )
    reduced = level.is_tiled if first.is_tiled else level.is_reduced
    if not same or not reduced or level.is_mask or not (0 < level.width < first.width and level.height > 0):
        return False
    ratio = max(first.width / level.width, first.height / level.height)
    expected_height, expected_width = first.height / ratio, first.width / ratio
    return (
        abs(level.height - expected_height) <= max(1.5, 0.01 * expected_height)
        and abs(level.width - expected_width) <= max(1.5, 0.01 * expected_width)
        and ratio >= 1.2
    )


def _colors(directory: Directory) -> int:
    """The photometric interpretation; YCbCr (6) counts as RGB (2), which it is decoded to."""
    photometric = directory.number(262, -1)
    return 2 if photometric == 6 else photometric
