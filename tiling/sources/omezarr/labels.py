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
        AttributeError: it is no group's metadata.
    """
    return cast("dict[str, Any]", document.get("attributes", {}).get("ome", {}))


def is_labels_group(folder: Path) -> bool:
    """True if a folder of an image is its group of labels, which are no part of its pixels."""
    if folder.name != LABELS:
        return False
    try:
        return LABELS in ome_of(json.loads((folder / "zarr.json").read_bytes()))
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):
        return False
