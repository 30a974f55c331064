"""Small OME-Zarr images of any axes and version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

SIZES = {"t": 2, "c": 3, "z": 4, "y": 150, "x": 211}


def axes_of(letters: str) -> list[dict[str, str]]:
    kinds = {"t": "time", "c": "channel"}
    units = {"y": "micrometer", "x": "micrometer", "z": "micrometer"}
    return [{"name": a, "type": kinds.get(a, "space"), **({"unit": units[a]} if a in units else {})} for a in letters]


def write(
    folder: Path, letters: str = "cyx", version: str = "0.5", levels: int = 3, dtype: str = "uint8", **options: Any
) -> list[np.ndarray[Any, Any]]:
    """Write a small image; gives its levels."""
    zarr_format = 2 if version == "0.4" else 3
    shape = tuple(SIZES[axis] for axis in letters)
    full = np.random.default_rng(1).integers(0, 250, shape).astype(dtype)
    arrays = [full[..., :: 2**level, :: 2**level] for level in range(levels)]
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    for level, array in enumerate(arrays):
        chunks = tuple(64 if axis in "yx" else 1 for axis in letters)
        given: dict[str, Any] = {"chunks": chunks, **options}
        if zarr_format == 2:
            given.setdefault("chunk_key_encoding", {"name": "v2", "separator": "/"})
        stored = group.create_array(str(level), shape=array.shape, dtype=array.dtype, **given)
        stored[...] = array
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [{"y": 0.25, "x": 0.5}.get(a, 1.0) * 2**level for a in letters]}
            ],
        }
        for level in range(levels)
    ]
    image: dict[str, Any] = {"axes": axes_of(letters), "datasets": datasets, "name": "image"}
    if version == "0.4":
        group.attrs["multiscales"] = [{**image, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return arrays
