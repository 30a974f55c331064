"""QPTIFF (Akoya, PerkinElmer): one page per channel and level, each with a small XML description of its own.

"QPTIFF Image File Format", Akoya 2019: pages in full resolution first, a thumbnail, reduced resolutions, then the
overview and the label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tiling.errors import SourceError
from tiling.geometry import PixelSize
from tiling.sources.limits import MAX_BANDS
from tiling.sources.tiff import pixel_size as sizes
from tiling.sources.tiff.directory import Chain

_MARK = "<PerkinElmer-QPI-ImageDescription"
_IMAGE_TYPE = re.compile(r"<ImageType>\s*(\w+)\s*</ImageType>")
_NAME = re.compile(r"<Name>\s*([^<]{1,200}?)\s*</Name>")
_DESCRIPTION_TAG = 270
_MAX_PAGES = 2048
_HEAD_CHARACTERS = 64 * 1024  # the type and the name stand before scan profiles of megabytes


@dataclass(frozen=True, slots=True)
class Channels:
    """The pages of a QPTIFF's channels, and of the same channels in each coarser level."""

    pages: tuple[int, ...]
    names: tuple[str, ...]  # empty where one page holds all bands
    pixel_size: PixelSize | None
    smaller: tuple[tuple[int, ...], ...]


def is_qptiff(description: str) -> bool:
    return _MARK in description[:1000]


def find_channels(chain: Chain) -> Channels:
    """Sort the pages of a QPTIFF by what their descriptions say that they are.

    Raises:
        SourceError: no page says that it is of full resolution.
    """
    full: list[int] = []
    names: list[str] = []
    reduced: dict[tuple[int, int], list[int]] = {}
    for index in range(min(len(chain), _MAX_PAGES)):
        directory = chain[index]
        text = directory.text(_DESCRIPTION_TAG)[:_HEAD_CHARACTERS]
        kind = _IMAGE_TYPE.search(text)
        if kind is None:
            continue
        if kind[1] == "FullResolution":
            name = _NAME.search(text)
            full.append(index)
            names.append(name[1] if name else "")
        elif kind[1] == "ReducedResolution":
            reduced.setdefault((directory.height, directory.width), []).append(index)
    if not 1 <= len(full) <= MAX_BANDS:
        raise SourceError(f"the QPTIFF names {len(full)} pages of full resolution; 1 to {MAX_BANDS} are allowed")
    if "" in names or len(set(names)) < len(names):
        names = [str(number + 1) for number in range(len(names))]
    smaller = tuple(tuple(pages) for pages in reduced.values() if len(pages) == len(full))
    size = sizes.from_resolution(chain[full[0]], "")
    return Channels(tuple(full), tuple(names) if len(full) > 1 else (), size, smaller)
