"""Time at which a scene was taken, as its delivery's metadata or its STAC item says."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any, cast

from tiling.errors import SourceError, StorageError
from tiling.sources.scene.landsat import landsat_folder, landsat_metadata
from tiling.sources.scene.sentinel2 import parsed, sentinel2_folder
from tiling.sources.scene.stac import is_stac
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place

_TIMES = ("datetime", "start_datetime", "end_datetime")
_SENSED = ("SENSING_TIME", "DATATAKE_SENSING_START", "PRODUCT_START_TIME")
_FIELD = re.compile(r"^\s*(DATE_ACQUIRED|SCENE_CENTER_TIME)\s*=\s*\"?([^\"\n]{1,40}?)\"?\s*$", re.MULTILINE)


def acquired(path: Place) -> dict[str, str | None]:
    """Times of a scene by STAC's names, `datetime` or a start and an end; empty where nothing says them."""
    try:
        if is_stac(path):
            return _of_item(path)
        if isinstance(path, ObjectPath):
            return {}
        if delivered := sentinel2_folder(path):
            return _one(_sensed(delivered))
        if delivered := landsat_folder(path):
            found = dict(_FIELD.findall(landsat_metadata(delivered)[0].read_text("utf-8", errors="replace")))
            return _one(f"{found['DATE_ACQUIRED']}T{found['SCENE_CENTER_TIME']}")
    except (OSError, SourceError, StorageError, ValueError, LookupError, AttributeError):
        pass  # what is no time says none
    return {}


def _of_item(path: Place) -> dict[str, str | None]:
    given = cast("dict[str, Any]", json.loads(path.read_bytes())["properties"])
    times = {name: _utc(str(given[name])) for name in _TIMES if given.get(name) is not None}
    if "datetime" not in times and len(times) < len(_TIMES) - 1:
        return {}
    return {"datetime": None, **times}


def _sensed(folder: Path) -> str:
    """The granule's own time, else the product's."""
    for file in (*sorted(folder.glob("GRANULE/*/MTD_TL.xml")), *sorted(folder.glob("MTD_MSIL*.xml"))):
        root = parsed(file)
        for name in _SENSED:
            for each in root.iter(name):
                return each.text or ""
    return ""


def _one(text: str) -> dict[str, str | None]:
    return {"datetime": _utc(text.strip())}


def _utc(text: str) -> str:
    """A time by RFC 3339, in UTC; one without a zone is taken for that."""
    # Landsat's seconds have seven decimals.
    time = dt.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    time = time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)
    return time.isoformat().replace("+00:00", "Z")
