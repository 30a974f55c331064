"""`mask.qml` and `objects.qml`: names and colours of the classes, which QGIS takes by itself for the files beside them.

A GeoTIFF's colour table has 256 entries, no names and no transparency: by it alone QGIS lists every number from 0 to
255 and paints the background over the image. https://docs.qgis.org/3.40/en/docs/user_manual/appendices/
qgis_file_formats.html#qml-the-qgis-style-file-format
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from tiling.export.finished import Finished
from tiling.runs.mask import BACKGROUND, NOT_PREDICTED
from tiling.runs.ome_metadata import LabelClass

_VERSION = "3.16"
"""Of QGIS, whose words these are; every later one reads them."""
_FILL_ALPHA = 128


def write_qgis(finished: Finished, paths: Sequence[Path]) -> None:
    """A style for `mask.tif`, and one for `objects.gpkg` and `objects.geojson`."""
    for path, style in zip(paths, (_of_mask(finished), _of_objects(finished)), strict=True):
        ET.indent(style)
        path.write_bytes(ET.tostring(style, encoding="utf-8", xml_declaration=True))


def _of_mask(finished: Finished) -> ET.Element:
    """The background is transparent; what was not predicted is not, so that no gap looks like background."""
    style = ET.Element("qgis", version=_VERSION, styleCategories="Symbology")
    gaps = _rgba(finished.classes[NOT_PREDICTED], _FILL_ALPHA)
    looks = {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": gaps}
    palette = ET.SubElement(ET.SubElement(ET.SubElement(style, "pipe"), "rasterrenderer", looks), "colorPalette")
    for label, item in enumerate(finished.run.classes):
        entry = {"value": str(label), "label": _text(item), "color": item.color}
        ET.SubElement(palette, "paletteEntry", entry, alpha="0" if label == BACKGROUND else "255")
    return style


def _of_objects(finished: Finished) -> ET.Element:
    """By the column `label`, which all names have, whatever is in them."""
    style = ET.Element("qgis", version=_VERSION, styleCategories="Symbology")
    renderer = ET.SubElement(style, "renderer-v2", type="categorizedSymbol", attr="label")
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for label, item in finished.classes.items():
        ET.SubElement(categories, "category", value=str(label), label=_text(item), symbol=str(label), render="true")
        symbol = ET.SubElement(symbols, "symbol", name=str(label), type="fill", alpha="1")
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill"})
        for key, value in (("color", _rgba(item, _FILL_ALPHA)), ("outline_color", _rgba(item, 255))):
            ET.SubElement(layer, "prop", k=key, v=value)
    return style


def _rgba(item: LabelClass, alpha: int) -> str:
    return ",".join(str(part) for part in (*bytes.fromhex(item.color[1:]), alpha))


def _text(item: LabelClass) -> str:
    """XML has no place for control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in item.name)
