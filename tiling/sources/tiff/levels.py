"""Levels of a TIFF's pyramid: the directories that its dialect says are levels, never by shape alone.

OME-TIFF 6: SubIFDs. TIFF 6.0 and GeoTIFF: the reduced-image flag. Aperio: tiled pages that are no label and no macro.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from enum import Enum

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.sources.limits import MAX_LEVELS, MAX_PYRAMID_PAGES
from tiling.sources.tiff.directory import Chain, Directory, read_directory

_SUBFILE_TYPE, _DESCRIPTION, _SAMPLES, _GEO_KEYS = 254, 270, 277, 34735
_HEAD_CHARACTERS = 2000
_MASK_BIT = 4


class LevelRule(Enum):
    """By what a level is known."""

    NAMED = "metadata names its pages"
    SUBIFDS = "it is a SubIFD"
    FLAGGED = "it says that it is a reduced image"
    APERIO = "it is tiled, and no label nor macro"


def find_levels(
    chain: Chain,
    pages: tuple[int, ...],
    rule: LevelRule,
    smaller: tuple[tuple[int, ...], ...] = (),
    following: tuple[int, ...] = (),
) -> list[list[Directory]]:
    """Directories of levels 1 and up, each with one directory per plane, largest first.

    `smaller` are pages that the metadata names as levels, `following` those that belong to the image.
    """
    base = [chain[index] for index in pages]
    named = [[chain[index] for index in level] for level in smaller]
    found = [each for each in _candidates(chain, base, rule, following) if _obeys(each, rule)]
    levels = [each for each in (*named, *found) if _is_smaller(each, base, rule)]
    levels.sort(key=lambda directories: -directories[0].width)
    unique: list[list[Directory]] = []
    for directories in levels:
        previous = unique[-1][0] if unique else base[0]
        if directories[0].width < previous.width and directories[0].height <= previous.height:
            unique.append(directories)
    return unique[:MAX_LEVELS]


def find_masks(chain: Chain, following: tuple[int, ...], sizes: list[tuple[int, int]]) -> list[Directory | None]:
    """The directory of each level's mask, by its size, among the pages of the image; None where a level has none.

    A mask says which pixels hold data (TIFF 6.0, NewSubfileType bit 2; GDAL writes one per level).
    """
    found: dict[tuple[int, int], Directory] = {}
    for index in following[:MAX_PYRAMID_PAGES]:
        with suppress(SourceError):
            directory = chain[index]
            if directory.number(_SUBFILE_TYPE, 0) & _MASK_BIT and directory.number(_SAMPLES, 1) == 1:
                found.setdefault((directory.height, directory.width), directory)
    return [found.get(size) for size in sizes]


def _candidates(
    chain: Chain, base: list[Directory], rule: LevelRule, following: tuple[int, ...]
) -> Iterator[list[Directory]]:
    """SubIFDs of the bands' pages and, where all bands are in one page, the pages that follow it.

    One that can't be read is no level, and no reason to refuse the image.
    """
    if rule is LevelRule.NAMED:
        return
    offsets = [tuple(int(offset) for offset in _subifds(directory)) for directory in base]
    places = list(zip(*offsets, strict=False))
    if len(base) == 1 and rule is not LevelRule.SUBIFDS:
        places += [(chain.offsets[index],) for index in following[:MAX_PYRAMID_PAGES]]
    for place in places:
        with suppress(SourceError):
            yield [read_directory(chain.layout, offset) for offset in place]


def _obeys(directories: list[Directory], rule: LevelRule) -> bool:
    """True if directories say of themselves what makes a level in their dialect."""
    if rule is LevelRule.APERIO:
        return all(each.is_tiled and not each.is_reduced and not _is_associated(each) for each in directories)
    return rule is LevelRule.SUBIFDS or all(each.is_reduced for each in directories)


def _is_associated(directory: Directory) -> bool:
    """True if an Aperio page's description calls it a label or a macro photograph, in its second line."""
    lines = directory.text(_DESCRIPTION)[:_HEAD_CHARACTERS].splitlines()
    return any(line.strip().lower().startswith(("label", "macro")) for line in lines)


def _subifds(directory: Directory) -> npt.NDArray[np.generic]:
    offsets = directory.values(330)
    return np.empty(0, np.uint64) if offsets is None else offsets[:MAX_LEVELS]


def _is_smaller(directories: list[Directory], base: list[Directory], rule: LevelRule) -> bool:
    """True if directories can be a smaller copy of level 0: same samples, same proportions, not a mask.

    Where level 0 is tiled, so is a level, but on maps: thumbnails are stripped.
    """
    first, level = base[0], directories[0]
    same = all(
        [d.number(code, 1) for code in (258, 277, 339)] == [first.number(code, 1) for code in (258, 277, 339)]
        and _colors(d) == _colors(first)
        and (d.height, d.width) == (level.height, level.width)
        for d in directories
    )
    is_map = rule is LevelRule.FLAGGED and _GEO_KEYS in first.entries
    kept_alike = level.is_tiled or not first.is_tiled or is_map
    if not same or not kept_alike or level.is_mask or not (0 < level.width < first.width and level.height > 0):
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
