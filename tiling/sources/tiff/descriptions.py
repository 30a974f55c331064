"""Band descriptions such as `B04`, colours, scales and offsets that GDAL writes into an XML tag of a TIFF."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import unescape

from tiling.sources.facts import Scale, known_scales
from tiling.sources.tiff.directory import Directory

_GDAL_METADATA = 42112
_ITEM = re.compile(r'<Item name="DESCRIPTION" sample="(\d{1,5})" role="description">([^<]{1,200})</Item>')
_COLOR = re.compile(r'<Item name="COLORINTERP" sample="(\d{1,5})" role="colorinterp">(Red|Green|Blue)</Item>')
_SCALE = re.compile(r'<Item name="(SCALE|OFFSET)" sample="(\d{1,5})" role="(?:scale|offset)">([^<]{1,60})</Item>')


def described(names: Sequence[str], directory: Directory) -> tuple[str, ...]:
    """The bands' names, with a description in place of each name where there is one, or the colour that it stands for.

    As they were where two bands would be called the same. No XML parser reads what anybody may have written.
    """
    text = directory.text(_GDAL_METADATA)
    found = {int(sample): color.lower() for sample, color in _COLOR.findall(text)}
    found |= {int(sample): _unescaped(text) for sample, text in _ITEM.findall(text)}
    renamed = tuple(found.get(index) or name for index, name in enumerate(names))
    return renamed if len({name.casefold() for name in renamed}) == len(names) else tuple(names)


def scales(count: int, directory: Directory) -> tuple[Scale, ...]:
    """Scale and offset of each band; empty where stored values are the bands' own, or what is written is no number."""
    found: dict[str, dict[int, float]] = {"SCALE": {}, "OFFSET": {}}
    try:
        for kind, sample, value in _SCALE.findall(directory.text(_GDAL_METADATA)):
            found[kind][int(sample)] = float(value)
    except ValueError:
        return ()
    return known_scales([(found["SCALE"].get(band, 1.0), found["OFFSET"].get(band, 0.0)) for band in range(count)])


def _unescaped(text: str) -> str:
    """GDAL escapes twice."""
    return unescape(unescape(text)).strip()
