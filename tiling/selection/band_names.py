"""A model's band names compared with an image's: what is meant is taken, and what can't be known is refused.

Numbers, greys and names such as `Channel 1` say nothing of what a band shows: such bands go by their place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_GENERIC = re.compile(
    r"(channel|chan|ch|c|band|layer|sample|page|component|image|array|data|unknown|undefined|value)?"
    r"[\s_:.#-]*[0-9]*([:/][0-9]+)*"
)
_GREYS = frozenset({"gray", "grey", "grayscale", "greyscale", "intensity", "brightness", "luminance", "mono"})
_SHORT = {"r": "red", "g": "green", "b": "blue"}


class BandsDifferError(ValueError):
    """The names contradict each other; says how, for people."""


def match_bands(image: Sequence[str], model: Sequence[str]) -> tuple[int, ...] | None:
    """Numbers of the image's bands, from 0, in the model's order; None where they stand as they should.

    Raises:
        BandsDifferError: as many bands, of other names.
    """
    if len(image) != len(model):
        return None  # counts are compared elsewhere, whatever the names
    ours, theirs = _plain(image), _plain(model)
    if ours == theirs or all(name is None for name in ours) or all(name is None for name in theirs):
        return None
    if None not in theirs and len(set(theirs)) == len(theirs) and sorted(map(str, ours)) == sorted(map(str, theirs)):
        return tuple(ours.index(name) for name in theirs)
    known = {name for name in ours if name is not None}
    for own, wanted in zip(ours, theirs, strict=True):
        if (own is None and wanted in known) or (own is not None and wanted is not None and own != wanted):
            raise BandsDifferError(f"{', '.join(image)} are not {', '.join(model)}")
        if wanted is None and own is not None and own in theirs:
            raise BandsDifferError(f"{', '.join(image)} are not {', '.join(model)}")
    return None


def _plain(names: Sequence[str]) -> list[str | None]:
    """Names as they tell bands apart, without differences of writing; None where one says nothing."""
    folded = [" ".join(name.casefold().replace("_", " ").split()) for name in names]
    if set(folded) == set(_SHORT) and len(folded) == len(_SHORT):
        return [_SHORT[name] for name in folded]
    return [None if name in _GREYS or _GENERIC.fullmatch(name) else name for name in folded]
