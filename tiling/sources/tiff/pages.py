"""Pages of a TIFF's main chain: those that are images of their own, and those that belong to one.

TIFF 6.0, NewSubfileType: bit 0 marks a smaller copy of the image before it, bit 2 a mask. Full pages of one size and
kind that follow each other are one image: a stack, or, where a description says so, channels of one.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from tiling.errors import SourceError
from tiling.sources.facts import Moment
from tiling.sources.limits import MAX_BANDS, MAX_PYRAMID_PAGES, MAX_XML_BYTES
from tiling.sources.tiff.directory import Chain, Directory

_DESCRIPTION_TAG, _PAGE_NAME_TAG, _SAMPLES_TAG = 270, 285, 277
_KIND_TAGS = (258, 277, 339, 262)
_MAX_LOCAL_PAGES = 4096


@dataclass(frozen=True, slots=True)
class PageImage:
    """One image: its full pages, and which pages follow each of them before the next full one."""

    name: str
    pages: tuple[int, ...]
    following: tuple[tuple[int, ...], ...]
    shape: Shape | None  # what its first page's description says of its pages


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of an array's leading axes, as tifffile writes it: their letters and lengths, and the channels' names."""

    axes: str
    lengths: tuple[int, ...]
    channel_names: tuple[str, ...]

    @property
    def pages(self) -> int:
        return math.prod(self.lengths)

    def length(self, axis: str) -> int:
        return self.lengths[self.axes.index(axis)] if axis in self.axes else 1

    def channels_at(self, moment: Moment) -> list[int]:
        """Numbers of the pages of all channels at one z and t."""
        found: list[int] = []
        for channel in range(self.length("C")):
            at = 0
            for axis, length in zip(self.axes, self.lengths, strict=True):
                at = at * length + {"C": channel, "Z": moment.z, "T": moment.t}.get(axis, 0)
            found.append(at)
        return found


def images_in(chain: Chain) -> list[PageImage]:
    """The images of the main chain, in its order; a page that can't be read belongs to none.

    Raises:
        SourceError: the first page can't be read, or is a smaller copy of an image that is kept elsewhere.
    """
    _expect_full(chain)
    pages: list[list[int]] = []
    following: list[list[list[int]]] = []
    firsts: list[tuple[Directory, Shape | None]] = []
    limit = MAX_PYRAMID_PAGES if chain.layout.file.is_slow else _MAX_LOCAL_PAGES
    for index in range(min(len(chain), limit)):
        with suppress(SourceError):
            directory = chain[index]
            if directory.is_mask or directory.is_reduced:
                if following:
                    following[-1][-1].append(index)
                continue
            shape = _shape(directory)
            if pages and _goes_on(firsts[-1], len(pages[-1]), directory, shape):
                pages[-1].append(index)
                following[-1].append([])
            else:
                pages.append([index])
                following.append([[]])
                firsts.append((directory, shape))
    if not pages:
        pages, following, firsts = [[0]], [[list(range(1, min(len(chain), limit)))]], [(chain[0], _shape(chain[0]))]
    if len(pages) == 1 and len(pages[0]) == limit < len(chain):
        # A long stack of one kind so far is taken for one to its end.
        rest = range(limit, len(chain))
        pages[0] += rest
        following[0] += [[] for _ in rest]
    return [
        PageImage(_name(first, each[0]), tuple(each), tuple(map(tuple, after)), shape)
        for each, after, (first, shape) in zip(pages, following, firsts, strict=True)
    ]


def _expect_full(chain: Chain) -> None:
    """Refuse a file whose first page is a picture of what lies in a SubIFD, as cameras write raw images."""
    first = chain[0]
    if first.is_reduced and not first.is_mask and 330 in first.entries and len(chain) == 1:
        raise SourceError(
            "its first image says that it is a smaller copy, and the full one lies in a SubIFD, as in raw photographs: "
            "a thumbnail would be read; convert it to a plain TIFF"
        )


def _goes_on(first: tuple[Directory, Shape | None], count: int, page: Directory, shape: Shape | None) -> bool:
    """True if a full page is the next of the same image, or begins another."""
    begun, begun_shape = first
    if begun_shape is not None and begun_shape.pages > 1 and count >= begun_shape.pages:
        return False
    if shape is not None and shape.pages > 1:
        return False
    alike = all(begun.number(code, 1) == page.number(code, 1) for code in _KIND_TAGS)
    return alike and (begun.height, begun.width) == (page.height, page.width)


def _name(directory: Directory, index: int) -> str:
    text = directory.text(_PAGE_NAME_TAG)
    return text[:100] if text and text.isprintable() else f"page {index}"


def _shape(directory: Directory) -> Shape | None:
    """The leading axes that tifffile's description names; None where it says nothing of them."""
    entry = directory.entries.get(_DESCRIPTION_TAG)
    if entry is None or entry.size_bytes > MAX_XML_BYTES:
        return None
    text = directory.text(_DESCRIPTION_TAG)
    if not text.startswith('{"shape":'):
        return None
    try:
        said = cast("dict[str, Any]", json.loads(text))
        sides = [int(side) for side in said["shape"]]
        axes = str(said.get("axes", "")).upper()
        names = said.get("Channel", {}).get("Name", ())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    trailing = 2 if directory.number(_SAMPLES_TAG, 1) == 1 else 3
    lengths = tuple(sides[:-trailing])
    if any(not 0 < length <= 2**31 for length in lengths):
        return None
    letters = axes[: len(lengths)] if len(axes) == len(sides) else ""
    named = names if isinstance(names, list) else []
    return Shape(letters, lengths, tuple(str(name) for name in cast("list[Any]", named)))


def expect_channels(image: PageImage, shape: Shape) -> None:
    """Raise `SourceError` where a description of channels can't be followed."""
    if shape.pages > len(image.pages):
        raise SourceError(
            f"its description names {shape.pages} pages and {len(image.pages)} are there: channels would be left out; "
            "write every page, for example as OME-TIFF"
        )
    if shape.length("C") > MAX_BANDS:
        raise SourceError(f"{shape.length('C')} channels; at most {MAX_BANDS} are read")
