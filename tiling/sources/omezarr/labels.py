"""Labels of an OME-Zarr 0.5 image: which of its folders holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

LABELS = "labels"
"""The group of an image's labels, and the key under which it names them."""


def ome_of(document: Any) -> dict[str, Any]:
    """Metadata of OME in a group's `zarr.json`.

    Raises:
        AttributeError, TypeError: it is no group's metadata.
    """
    found: Any = document.get("attributes", {}).get("ome", {})
    if not isinstance(found, dict):
        raise TypeError(f"its ome is a {type(found).__name__}, not an object")
    return cast("dict[str, Any]", found)


def is_labels_group(folder: Path) -> bool:
    """True if a folder of an image is its group of labels, which are no part of its pixels."""
    if folder.name != LABELS:
        return False
    try:
        return LABELS in ome_of(json.loads((folder / "zarr.json").read_bytes()))
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):
        return False
