"""`item.json`: a STAC item of the mask, beside the COG that is its asset (STAC 1.1.0).

Where the mask lies is said by the extension `projection` (2.0.0), what its labels mean by `classification` (2.0.0).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from tiling.errors import ExportError, SourceError, StorageError
from tiling.export.antimeridian import brought_home
from tiling.export.finished import Finished
from tiling.export.geojson import expect_geojson, unroller
from tiling.export.subject import Subject
from tiling.georeference.crs import crs_of
from tiling.georeference.placement import moved
from tiling.runs.mask import NOT_PREDICTED
from tiling.sources.packed.name import packed_name
from tiling.sources.scene.acquired import acquired
from tiling.sources.scene.packed_image import image_in
from tiling.sources.scene.stac import is_stac
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, place_of

MASK = "mask.tif"
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
)
_EDGE_POINTS = 16
_DECIMALS = 7


def expect_stac(subject: Subject) -> None:
    """Raise ExportError for an image whose outline has no longitude and latitude."""
    subject.expect_map("stac", "ome-tiff")
    try:
        expect_geojson(subject)
    except ExportError as error:
        raise ExportError(f"a STAC item says its outline in longitude and latitude: {error}") from error


def write_stac(finished: Finished, paths: Sequence[Path]) -> None:
    """The item with the mask as its one asset.

    Its time is that of the scene, where its metadata or STAC item says one; else the run's own, as STAC has it for what
    was derived.
    """
    card, subject = finished.run.card, finished.subject
    bounds, geometry = _outline(subject)
    image = place_of(card.image.path)
    times = acquired_in(image) or {"datetime": _utc(card.created)}
    size = finished.placement.pixel_size
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": f"{_word(image.stem)}-{_word(card.model.name)}",
        "geometry": geometry,
        "bbox": bounds,
        "properties": {
            **times,
            "title": f"{card.model.name} of {image.name}",
            "created": _utc(card.created),
            **({"gsd": max(size.y, size.x)} if size is not None and size.unit == "m" else {}),
            **_projection(subject),
        },
        "links": _links(image, finished.run.exports),
        "assets": {
            "mask": {
                "href": f"./{MASK}",
                "type": _COG,
                "roles": ["data"],
                "title": "labels",
                "data_type": "uint8",
                "nodata": NOT_PREDICTED,
                "bands": [{"name": "label"}],
                "classification:classes": _classes(finished),
            }
        },
    }
    paths[0].write_text(json.dumps(item, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _outline(subject: Subject) -> tuple[list[float], dict[str, Any]]:
    """Bounds and outline in longitude and latitude; on the 180th meridian cut there (RFC 7946, sections 3.1.9, 5.2)."""
    affine = subject.placement.to_map
    assert affine is not None
    height, width = subject.shape
    part = np.linspace(0, 1, _EDGE_POINTS + 1)[:-1]
    zero, one = np.zeros_like(part), np.ones_like(part)
    across, down = np.concatenate([part, one, 1 - part, zero]), np.concatenate([zero, part, one, 1 - part])
    places = unroller(subject)(moved(affine, np.column_stack([across * width, down * height])))
    whole = shapely.geometry.polygon.orient(shapely.Polygon(np.round(places, _DECIMALS)))
    parts = brought_home(whole)
    west, east = parts[0].bounds[0], parts[-1].bounds[2]
    bounds = [west, float(places[:, 1].min()), east, float(places[:, 1].max())]
    shape = parts[0] if len(parts) == 1 else shapely.multipolygons(parts)
    return [round(float(value), _DECIMALS) for value in bounds], json.loads(shapely.to_geojson(shape))


def _projection(subject: Subject) -> dict[str, Any]:
    georeference, to_map = subject.placement.georeference, subject.placement.to_map
    assert georeference is not None
    assert to_map is not None
    crs = crs_of(georeference)
    code = None if crs is None else crs.to_authority()
    # Without a code the CRS has to be said otherwise.
    text = {"proj:wkt2": crs.to_wkt(version="WKT2_2019")} if code is None and crs is not None else {}
    return {
        "proj:code": None if code is None else ":".join(code),
        **text,
        "proj:shape": list(subject.shape),
        "proj:transform": list(to_map),
    }


def _classes(finished: Finished) -> list[dict[str, Any]]:
    """The mask's values: names as the extension allows them, and as they are."""
    named = {0: finished.run.classes[0], **finished.classes}
    return [
        {
            "value": label,
            "name": _word(item.name).strip("_") or f"class_{label}",
            "title": item.name or f"class {label}",
            "color_hint": item.color.removeprefix("#").upper(),
            **({"nodata": True} if label == NOT_PREDICTED else {}),
        }
        for label, item in named.items()
    ]


def acquired_in(image: Place) -> dict[str, str | None]:
    """Time at which a scene was taken, also of one in a zip or tar file."""
    packed = packed_name(image) if isinstance(image, Path) else None
    if packed is None:
        return acquired(image)
    try:
        with image_in(packed) as (_, own):
            return acquired(own)
    except (SourceError, OSError):
        return {}  # which is no reason against an export


def _links(image: Place, exports: object) -> list[dict[str, str]]:
    """The item that was segmented, where it was one and lies on the web or on the same disk."""
    try:
        if not is_stac(image):
            return []
    except (OSError, StorageError):
        return []  # what can't be looked at is no reason against an export
    if isinstance(image, ObjectPath):
        href = str(image)
    elif isinstance(exports, Path):
        href = os.path.relpath(image, exports)
    else:
        return []
    return [{"rel": "derived_from", "href": href, "type": "application/geo+json"}]


def _word(text: str) -> str:
    return re.sub(r"[^0-9A-Za-z_-]+", "_", text)


def _utc(text: str) -> str:
    return text.replace("+00:00", "Z")
