"""STAC item: which of its assets are bands, and what it says of them.

Versions 1.0 and 1.1 (https://github.com/radiantearth/stac-spec), with the extensions `eo` and `raster`.
Assets are files below the item's folder, in its bucket, or on the web. Those with one band each become the scene's
bands, by the asset's name, and those of one band in one format its mosaic; assets of the same several bands become a
mosaic of them all.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, cast

from tiling.errors import SourceError, StorageError
from tiling.sources.facts import Scale
from tiling.sources.scene.contained import at_url, contained, is_on_web
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place

MAX_ITEM_BYTES = 8 * 1024**2
SUFFIXES = (".json", ".geojson")
_RASTERS = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2")
_NAMES = (".tif", ".tiff", ".jp2")
_SCALED = ("scale", "offset", "raster:scale", "raster:offset")
_NAMES_ITEM = b'"stac_version"'
_HEAD_BYTES = 1024
_BLANK = b"\xef\xbb\xbf \t\r\n"
_NO_BANDS = {"thumbnail", "overview", "metadata", "visual"}


@dataclass(frozen=True, slots=True)
class Assets:
    """A band's name, or None for all bands; its files; their value for no data and scales where the item says them."""

    name: str | None
    files: tuple[Place, ...]
    nodata: float | None
    scales: tuple[Scale, ...]
    holds_classes: bool = False


def may_be_item(path: Place) -> bool:
    """True if a name may be a STAC item's: that which an API gives (`…/collections/ID/items/ID`) has no suffix."""
    name = path.name.lower()
    return name.endswith(SUFFIXES) or "." not in name or path.parent.name == "items"


def is_stac(path: Place) -> bool:
    """True if a file on a disk, an object in a bucket or an address on the web is a STAC item, by its content.

    Raises:
        OSError, StorageError: it can't be looked at.
    """
    if not may_be_item(path):
        return False
    is_named = path.name.lower().endswith(SUFFIXES)
    if isinstance(path, ObjectPath):
        return _is_item(path) if is_named else _is_given(path)
    if not path.is_file() or path.stat().st_size > MAX_ITEM_BYTES:
        return False
    with path.open("rb") as file:
        return (is_named or _begins(file.read(_HEAD_BYTES))) and _NAMES_ITEM in path.read_bytes()


def _is_item(path: ObjectPath) -> bool:
    try:
        return path.facts().size_bytes <= MAX_ITEM_BYTES and _NAMES_ITEM in path.read_bytes()
    except FileNotFoundError:
        return False


def _is_given(path: ObjectPath) -> bool:
    """True if an address whose name says nothing gives an item; a folder of an OME-Zarr gives anything or fails."""
    try:
        return _begins(path.read_range(0, _HEAD_BYTES, None)) and _is_item(path)
    except (FileNotFoundError, StorageError):
        return False


def _begins(head: bytes) -> bool:
    return head.lstrip(_BLANK).startswith(b"{")


def stac_assets(path: Place) -> list[Assets]:
    """The files of an item's bands, in the order in which it names them.

    Raises:
        SourceError: it is no item, has no band, or leads out of its folder.
    """
    try:
        item = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: the STAC item can't be parsed ({error}); download it again") from error
    if not isinstance(item, dict) or item.get("type") != "Feature" or not isinstance(item.get("assets"), dict):
        raise SourceError(f"{path}: is no STAC item (a Feature with assets); give an item, not a collection")
    rasters = {name: each for name, each in cast("dict[str, Any]", item["assets"]).items() if _is_raster(each)}
    described = {name: each for name, each in rasters.items() if _bands(each)}
    single = {name: each for name, each in described.items() if len(_bands(each)) == 1} or (
        {} if described else rasters
    )
    try:
        if single:
            return _by_band(single, path)
        if described and len({_names(each) for each in described.values()}) == 1:
            return [_files(None, list(described.values()), path)]
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
    raise SourceError(
        f"{path}: has {len(described)} assets of several bands, not the same, and none of one: nothing says which to "
        "take; name the file itself"
    )


def _by_band(assets: dict[str, Any], path: Place) -> list[Assets]:
    """Files of each band: an item may hold the same in several formats, and the first counts."""
    found: dict[str, list[Any]] = {}
    names: dict[str, str] = {}
    for name, asset in assets.items():
        band = str(_bands(asset)[0].get("name", name)) if _bands(asset) else name
        names.setdefault(band, name)
        held = found.setdefault(band, [])
        if not held or held[0].get("type") == asset.get("type"):
            held.append(asset)
    return [_files(names[band], held, path) for band, held in found.items()]


def _files(name: str | None, assets: list[Any], path: Place) -> Assets:
    nodata = [_nodata(asset) for asset in assets]
    if len({repr(value) for value in nodata}) > 1:
        raise SourceError(f"its assets of a band ({name or 'all'}) name different values for no data; make them equal")
    scales = {_scales(asset) for asset in assets}
    if len(scales) > 1:
        raise SourceError(f"its assets of a band ({name or 'all'}) name different scales or offsets; make them equal")
    files = tuple(_file(asset["href"], path) for asset in assets)
    return Assets(name, files, nodata[0], scales.pop(), any(_holds_classes(asset) for asset in assets))


def _file(href: str, item: Place) -> Place:
    if isinstance(item, ObjectPath) or is_on_web(href):
        return at_url(href, item, "asset")
    return contained(href, item, "asset")


def _holds_classes(asset: dict[str, Any]) -> bool:
    """True if an asset says what classes its numbers name, by the extension `classification`."""
    described = [asset, *_bands(asset)]
    raster = asset.get("raster:bands")
    if isinstance(raster, list):
        described += [each for each in cast("list[Any]", raster) if isinstance(each, dict)]
    return any(key in each for each in described for key in ("classification:classes", "classification:bitfields"))


def _names(asset: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(each.get("name", "")) for each in _bands(asset))


def _is_raster(asset: Any) -> bool:
    """True if an asset holds pixels that were measured, and no picture of them."""
    if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
        return False
    roles = asset.get("roles")
    if isinstance(roles, list) and not _NO_BANDS.isdisjoint(str(role) for role in cast("list[Any]", roles)):
        return False
    kind = str(asset.get("type", ""))
    return kind.startswith(_RASTERS) or (not kind and cast("str", asset["href"]).lower().endswith(_NAMES))


def _bands(asset: dict[str, Any]) -> list[dict[str, Any]]:
    """Descriptions of an asset's bands: `eo:bands`, or `bands` since 1.1."""
    for key in ("eo:bands", "bands"):
        bands = asset.get(key)
        if isinstance(bands, list) and bands and all(isinstance(each, dict) for each in cast("list[Any]", bands)):
            return cast("list[dict[str, Any]]", bands)
    return []


def _scales(asset: dict[str, Any]) -> tuple[Scale, ...]:
    """Scale and offset of each band, by the extension `raster`: on the bands, or on the asset for all of them."""
    for bands in (asset.get("raster:bands"), asset.get("bands"), [asset] * max(1, len(_bands(asset)))):
        if isinstance(bands, list) and all(isinstance(each, dict) for each in cast("list[Any]", bands)):
            described = cast("list[dict[str, Any]]", bands)
            if any(key in each for each in described for key in _SCALED):
                return tuple((_value(each, "scale", 1.0), _value(each, "offset", 0.0)) for each in described)
    return ()


def _value(band: dict[str, Any], name: str, default: float) -> float:
    value = band.get(name, band.get(f"raster:{name}", default))
    number = _number(value)
    if number is None or not math.isfinite(number) or (name == "scale" and number == 0):
        raise SourceError(f"the {name} {value!r:.100} of a band is no number that scales it; correct it")
    return number


def _number(value: Any) -> float | None:
    """A number; None of all else, and of integers that no raster's type holds."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _nodata(asset: dict[str, Any]) -> float | None:
    for bands in (asset.get("raster:bands"), asset.get("bands"), [asset]):
        if isinstance(bands, list) and bands and isinstance(bands[0], dict):
            value = cast("dict[str, Any]", bands[0]).get("nodata")
            if value in ("nan", "inf", "-inf"):
                return float(value)
            if value is not None:
                number = _number(value)
                if number is None:
                    raise SourceError(f"the value for no data {value!r:.100} is no number of a raster; correct it")
                return number
    return None
