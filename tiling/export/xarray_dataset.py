"""A run as an xarray Dataset: labels and probabilities with coordinates and what they mean, all of it lazy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tiling.errors import ExportError
from tiling.georeference.crs import crs_of
from tiling.georeference.placement import Placement
from tiling.runs.mask import NOT_PREDICTED
from tiling.runs.placement import placement_of
from tiling.runs.run import Run
from tiling.runs.uncomputed import NO_DATA_NAME, NOT_PREDICTED_NAME

if TYPE_CHECKING:
    import xarray

_UNITS = {"um": "µm", "m": "m", "degree": "degree"}


def dataset_of(run: Run) -> xarray.Dataset:
    """`labels` `(y, x)`, and `probabilities` `(class, y, x)` where they were kept.

    `y` and `x` are the centres of the mask's pixels: on the map where the image has a geotransform that isn't rotated,
    else µm or metres from the corner of the image's level 0, and pixels of that where nobody knows what they measure.
    The attributes can be written by xarray's own writers; `flag_values` and `flag_meanings` are those of the CF
    conventions (https://cfconventions.org), `transform` is in the order of rasterio's `Affine`.

    Raises:
        ExportError: xarray isn't installed, or the image is no longer the one that the run segmented.
        SourceError: the image, which says where the mask lies, is gone.
    """
    try:
        import xarray
    except ModuleNotFoundError as error:
        raise ExportError(
            "a Dataset is made with xarray, which isn't installed: pip install xarray, or take the dask arrays as "
            "they are"
        ) from error
    with run.open_source() as source:
        placement = placement_of(run, source)
    mask = run.open_mask(read_only=True)
    y, x, unit = _coordinates(placement, mask.shape)
    if run.card.image.origin_px is not None and run.pixel_size is not None and placement.to_map is None:
        y = y + run.card.image.origin_px[0] * run.pixel_size.y
        x = x + run.card.image.origin_px[1] * run.pixel_size.x
    along = {"y": ("y", y, {"units": unit, "axis": "Y"}), "x": ("x", x, {"units": unit, "axis": "X"})}
    variables: dict[str, Any] = {"labels": (("y", "x"), mask.pyramid.lazy()[0], _meaning(run))}
    kept = run.open_probabilities(read_only=True)
    if kept is not None:
        along["class"] = ("class", [item.name for item in run.card.probabilities], {})
        about = {"long_name": "probability of each class", "scale": "255 is certain"}
        variables["probabilities"] = (("class", "y", "x"), kept.pyramid.lazy()[0], about)
    return xarray.Dataset(variables, along, _facts(run, placement))


def _meaning(run: Run) -> dict[str, Any]:
    unlabelled = NOT_PREDICTED_NAME if run.fill is None else f"{NO_DATA_NAME} or {NOT_PREDICTED_NAME}"
    names = [*(item.name for item in run.classes), unlabelled]
    return {
        "long_name": "class of each pixel",
        "flag_values": np.array([*range(len(run.classes)), NOT_PREDICTED], np.uint8),
        "flag_meanings": " ".join("_".join(name.split()) for name in names),
        "classes": names,
        "colors": [*(item.color for item in run.classes), "#808080"],
        "nodata": NOT_PREDICTED,
    }


def _facts(run: Run, placement: Placement) -> dict[str, Any]:
    """Facts that all variables share; what isn't known is left out, since files can't hold None."""
    crs = crs_of(placement.georeference) if placement.georeference is not None else None
    card, facts = run.card, dict[str, Any]()
    if crs is not None:
        facts["crs"] = str(crs.to_string())
    if placement.to_map is not None:
        facts["transform"] = list(placement.to_map)
    if placement.pixel_size is not None:
        size = placement.pixel_size
        facts |= {"pixel_size": [size.y, size.x], "pixel_size_unit": _UNITS[size.unit]}
    return {
        **facts,
        "image": card.image.path,
        "model": card.model.name,
        "model_digest": card.model.digest,
        "run": str(run.path),
        "created": card.created,
    }


def _coordinates(placement: Placement, shape: Sequence[int]) -> tuple[Any, Any, str]:
    """The centres of the mask's rows and columns, and their unit."""
    rows, cols = (np.arange(side) + 0.5 for side in shape)
    on_map = placement.to_map
    if on_map is not None and on_map[1] == on_map[3] == 0:
        unit = _UNITS[placement.pixel_size.unit] if placement.pixel_size is not None else ""
        return on_map[4] * rows + on_map[5], on_map[0] * cols + on_map[2], unit
    wide, _, left, _, tall, top = placement.to_image
    size = placement.pixel_size
    if on_map is None and size is not None and size.unit != "degree":
        # What a pixel of level 0 measures is not asked of the file: where it is wrong, a run knows better.
        return (rows + top / tall) * size.y, (cols + left / wide) * size.x, _UNITS[size.unit]
    return tall * rows + top, wide * cols + left, "pixel"
