"""OME-Zarr metadata: which arrays are the levels of an image, which axes they have, what a pixel measures.

OME-Zarr 0.4 (`.zattrs`, Zarr 2) and 0.5 (`zarr.json`, Zarr 3), https://ngff.openmicroscopy.org.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast
from xml.etree import ElementTree as ET

from tiling.errors import SourceError
from tiling.geometry import PixelSize
from tiling.sources.limits import MAX_LEVELS, MAX_XML_BYTES, one_line

Document = dict[str, Any]
Fetch = Callable[[str], bytes | None]
"""The content of a small file by its name below the image; None where there is none."""

_UM = {
    "micrometer": 1.0,
    "micrometre": 1.0,
    "micron": 1.0,
    "um": 1.0,
    "µm": 1.0,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "nm": 1e-3,
    "millimeter": 1e3,
    "millimetre": 1e3,
    "mm": 1e3,
    "centimeter": 1e4,
    "angstrom": 1e-4,
    "picometer": 1e-6,
}
_METRES = {"meter": 1.0, "metre": 1.0, "m": 1.0, "kilometer": 1e3}
_LEAST_GROUND_M = 1e-3  # metres below that are microscopy, above it a map
MAX_IMAGES = 256  # of one place
_AXES_BEFORE_0_3 = "tczyx"


@dataclass(frozen=True, slots=True)
class LevelPlace:
    """Place of a level by its own transformations.

    Attributes:
        pixel_size: None where the unit isn't known.
        origin_px: where its first pixel's centre lies in the axes' coordinates, in its own pixels, y before x.
    """

    pixel_size: PixelSize | None
    origin_px: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Multiscale:
    """One image: `folder` is where it lies below the place that was opened, `paths` are its levels' arrays."""

    folder: str
    version: str
    axes: str
    paths: tuple[str, ...]
    pixel_sizes: tuple[PixelSize | None, ...]  # of each level
    sides: tuple[tuple[float, float], ...]  # the same as plain numbers, y before x
    name: str
    channel_names: tuple[str, ...]
    places: dict[str, LevelPlace]  # by the levels' paths; those that say nothing of themselves are left out
    documents: tuple[bytes, ...]  # as they were read, of which the image's identity is made


def find_multiscales(fetch: Fetch) -> list[Multiscale]:
    """The images below a place, in the order in which it names them; none where there is no OME-Zarr.

    Raises:
        SourceError: metadata that is no OME-Zarr's, or a plate, of which an image must be chosen.
    """
    found = _attributes(fetch, "")
    if found is None:
        return []
    attributes, raw = found
    if "multiscales" not in attributes and "plate" not in attributes:
        layout = attributes.get("bioformats2raw.layout")
        if layout is not None:
            return _images_of_layout(fetch, raw)
    if "plate" in attributes or "well" in attributes:
        raise SourceError("the OME-Zarr is a plate of many images; give the folder of one field, such as PLATE/A/1/0")
    if "multiscales" not in attributes:
        raise SourceError("the Zarr holds no image: its attributes have no multiscales; give the folder of an OME-Zarr")
    return _multiscales(attributes, raw, "")


def _images_of_layout(fetch: Fetch, raw: bytes) -> list[Multiscale]:
    """The images that bioformats2raw writes side by side: those of `OME/series`, else 0, 1, 2 and so on."""
    series = _attributes(fetch, "OME/")
    listed = series[0].get("series") if series is not None else None
    folders = [str(each).strip("/") for each in cast("list[Any]", listed)] if isinstance(listed, list) else []
    if any(not each or ".." in each.split("/") for each in folders):
        raise SourceError("the OME-Zarr names images that lie outside it")
    if len(folders) > MAX_IMAGES:
        raise SourceError(f"the OME-Zarr holds {len(folders)} images; at most {MAX_IMAGES} are supported")
    images: list[Multiscale] = []
    for number in range(MAX_IMAGES if not folders else len(folders)):
        folder = f"{folders[number] if folders else number}/"
        inner = _attributes(fetch, folder)
        if inner is None:
            if not folders:
                break
            raise SourceError(f"the OME-Zarr names image {folder!r}, which isn't there: the copy is incomplete")
        if "multiscales" in inner[0]:
            images += _multiscales(inner[0], raw + inner[1], folder)
    if not images:
        raise SourceError("the OME-Zarr of several images has no image 0; give the folder of one of them")
    names = _names_in(fetch("OME/METADATA.ome.xml"))
    if len(names) == len(images):
        return [replace(image, name=name or image.name) for image, name in zip(images, names, strict=True)]
    return images


def _names_in(xml: bytes | None) -> list[str]:
    """Names of the images in the OME-XML beside them; nothing where it can't be followed."""
    if xml is None or len(xml) > MAX_XML_BYTES or b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
        return []
    try:
        root = ET.fromstring(xml)
    except (ET.ParseError, ValueError):
        return []
    names = [image.get("Name", "") for image in root if image.tag.rpartition("}")[2] == "Image"]
    return [name[:200] if name.isprintable() else "" for name in names]


def _attributes(fetch: Fetch, folder: str) -> tuple[Document, bytes] | None:
    for name in ("zarr.json", ".zattrs"):
        raw = fetch(folder + name)
        if raw is None:
            continue
        document = parse(raw, folder + name)
        if name == ".zattrs":
            return document, raw
        attributes = _mapping(document.get("attributes"))
        ome = attributes.get("ome")
        return (_mapping(ome) if ome is not None else attributes), raw
    return None


def parse(raw: bytes, name: str) -> Document:
    """A JSON object; `SourceError` for anything else."""
    if len(raw) > MAX_XML_BYTES:
        raise SourceError(f"{name} of {len(raw)} bytes is over {MAX_XML_BYTES}")
    try:
        return _mapping(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name} is no JSON ({one_line(error)}): the Zarr is damaged") from error


def _mapping(value: Any) -> Document:
    if not isinstance(value, dict):
        raise SourceError(f"Zarr metadata holds {type(value).__name__} where an object must stand: it is damaged")
    return cast("Document", value)


def _multiscales(attributes: Document, raw: bytes, folder: str) -> list[Multiscale]:
    """The images of one folder: mostly one."""
    images = attributes["multiscales"]
    if not isinstance(images, list) or not images:
        raise SourceError("the OME-Zarr's multiscales are empty; give the folder of an image")
    listed = cast("list[Any]", images)
    if len(listed) > MAX_IMAGES:
        raise SourceError(f"the OME-Zarr holds {len(listed)} images; at most {MAX_IMAGES} are supported")
    return [_multiscale(_mapping(image), attributes, raw, folder) for image in listed]


def _multiscale(image: Document, attributes: Document, raw: bytes, folder: str) -> Multiscale:
    axes, units = _axes(image)
    datasets = cast("list[Any]", image.get("datasets") if isinstance(image.get("datasets"), list) else [])
    paths = tuple(str(_mapping(each).get("path", "")) for each in datasets[:MAX_LEVELS])
    if not paths or any(not path or path.startswith("/") or ".." in path.split("/") for path in paths):
        raise SourceError("the OME-Zarr names no arrays for its levels, or some that lie outside it")
    whole = _scale(image, len(axes))
    scales = [_scale(_mapping(each), len(axes)) for each in datasets[:MAX_LEVELS]]
    sides = [dict(zip(axes, (a * b for a, b in zip(scale, whole, strict=True)), strict=True)) for scale in scales]
    sizes = tuple(_pixel_size(each, units) for each in sides)
    plain = tuple((each["y"], each["x"]) for each in sides)
    name = str(image.get("name") or "")[:200]
    places = {
        str(each["path"]): _place(image, each, axes, units) for each in datasets[:MAX_LEVELS] if _says_scale(each)
    }
    version = str(attributes.get("version") or image.get("version") or "0.4")[:20]
    name = name if name and name.isprintable() else folder.rstrip("/") or "image"
    return Multiscale(folder, version, axes, paths, sizes, plain, name, _channel_names(attributes), places, (raw,))


def _axes(image: Document) -> tuple[str, dict[str, str]]:
    """The axes' letters in the arrays' order, and the units of those that have one."""
    given = image.get("axes", list(_AXES_BEFORE_0_3))
    names: list[str] = []
    units: dict[str, str] = {}
    for axis in cast("list[Any]", given if isinstance(given, list) else []):
        name = str(cast("Document", axis).get("name", "")) if isinstance(axis, dict) else str(axis)
        names.append(name)
        if isinstance(axis, dict):
            units[name] = str(cast("Document", axis).get("unit", "")).lower()
    if len(set(names)) < len(names) or not {"y", "x"} <= set(names) <= set("tczyx"):
        raise SourceError(f"the OME-Zarr has axes {names}; y and x are needed, and t, c and z may be there")
    return "".join(names), units


def _scale(owner: Document, count: int) -> list[float]:
    return _transformation(owner, "scale", count) or [1.0] * count


def _says_scale(dataset: Any) -> bool:
    found = cast("Document", dataset).get("coordinateTransformations") if isinstance(dataset, dict) else None
    return any(isinstance(each, dict) and "scale" in each for each in (found if isinstance(found, list) else []))


def _place(image: Document, dataset: Document, axes: str, units: dict[str, str]) -> LevelPlace:
    """Place of a level by its transformations, and after them the image's."""
    count = len(axes)
    scale, outer = _scale(dataset, count), _scale(image, count)
    inner, shift = (_transformation(each, "translation", count) or [0.0] * count for each in (dataset, image))
    sides = {axis: a * b for axis, a, b in zip(axes, scale, outer, strict=True)}
    origin = {axis: a * b + c for axis, a, b, c in zip(axes, inner, outer, shift, strict=True)}
    y, x = (origin[axis] / sides[axis] if sides[axis] else 0.0 for axis in "yx")
    known = math.isfinite(y) and math.isfinite(x)
    return LevelPlace(_pixel_size(sides, units), (y, x) if known else (0.0, 0.0))


def _transformation(owner: Document, kind: str, count: int) -> list[float] | None:
    """The numbers of the first transformation of a kind, one per axis; None where there is none."""
    transformations = owner.get("coordinateTransformations")
    for each in cast("list[Any]", transformations if isinstance(transformations, list) else []):
        values: Any = cast("Document", each).get(kind) if isinstance(each, dict) else None
        if isinstance(values, list) and len(cast("list[Any]", values)) == count:
            try:
                return [float(value) for value in cast("list[Any]", values)]
            except (TypeError, ValueError) as error:
                raise SourceError(f"the OME-Zarr gives {kind} {str(values)[:80]}, which is no numbers") from error
    return None


def _pixel_size(sides: dict[str, float], units: dict[str, str]) -> PixelSize | None:
    unit = units.get("y", "")
    y, x = sides["y"], sides["x"]
    if unit != units.get("x", "") or not (0 < y < math.inf and 0 < x < math.inf):
        return None
    if unit in _UM:
        return PixelSize(y * _UM[unit], x * _UM[unit], "um")
    if unit not in _METRES:
        return None
    metres = _METRES[unit]
    if min(y, x) * metres < _LEAST_GROUND_M:
        return PixelSize(y * metres * 1e6, x * metres * 1e6, "um")
    return PixelSize(y * metres, x * metres, "m")


def _channel_names(attributes: Document) -> tuple[str, ...]:
    omero = attributes.get("omero")
    channels: Any = cast("Document", omero).get("channels") if isinstance(omero, dict) else None
    found = cast("list[Any]", channels if isinstance(channels, list) else [])
    return tuple(str(cast("Document", each).get("label", "")) if isinstance(each, dict) else "" for each in found)
