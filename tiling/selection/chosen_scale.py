"""Choice of the pixel size: a level as it is, or one that is resampled to the model's pixel size."""

from __future__ import annotations

import math

from tiling.errors import PlanError
from tiling.geometry import IMAGE_GRID, per_px
from tiling.georeference.ground_areas import Ground
from tiling.georeference.placement import Placement
from tiling.selection.view_request import ModelRequirements, Um, ViewRequest
from tiling.source import ImageSource
from tiling.sources.facts import Level
from tiling.view import View

CLOSE = 1.1
"""Up to this factor a pixel size is taken for another."""

IMPLAUSIBLE = 10.0
"""From this factor on a pixel size is taken for a mistake."""

_UM_PER_METRE = 1e6


def choose_scale(source: ImageSource, request: ViewRequest, model: ModelRequirements) -> tuple[View, dict[str, str]]:
    """View of the level and the step that are taken, and notes on them.

    Raises:
        PlanError: the request contradicts itself, or its pixel size can't be right for the model.
    """
    _expect_one_meaning(request)
    base = ground_um(source) if request.image_um is None else (request.image_um, request.image_um)
    stated = None if request.image_um is None else (request.image_um, request.image_um, "um")
    if request.level is not None or request.as_is or (request.pixel_um is None and model.pixel_um is None):
        level = _level(source, request.level or 0)
        if model.pixel_um is None:
            notes = _without_one_size(source, base, level, model)
        else:
            notes = _compared(source, base, level, model, as_is=request.as_is)
        if base is not None and not request.as_is:
            _expect_plausible(source, _side(base, level, source), model)
        return _view(source, level, stated), notes
    target = request.pixel_um or model.pixel_um
    assert target is not None
    if base is None:
        raise PlanError(_no_size(source, model, target))
    level = min(source.levels, key=lambda each: _off(_side(base, each, source), target))
    side = _side(base, level, source)
    if request.pixel_um is None and _off(side, target) >= IMPLAUSIBLE:
        raise PlanError(_ten_times(source, side, model))
    if _off(side, target) <= CLOSE:
        found = f"{per_px(side)}, for {per_px((target, target))}"
        return _view(source, level, stated), {"pixels": f"level {level.index} as it is: {found}"}
    finer = [each for each in source.levels if max(_ratio(_side(base, each, source), target)) <= 1.0 + 1e-9]
    level = finer[-1] if finer else source.levels[0]
    side = _side(base, level, source)
    step = target / side[0], target / side[1]
    text = f"resampled from level {level.index} of {per_px(side)} to {per_px((target, target))}"
    notes = {"pixels": text if min(step) >= 1 else f"{text}: finer than the image is, so that detail is missing"}
    return _view(source, level, stated, step), notes


def ground_um(source: ImageSource) -> Um | None:
    """Size of a pixel of level 0 along y and x, in µm: on the ground at its middle, where a map is off."""
    size = source.levels[0].pixel_size
    if size is None or size.unit == "um":
        return None if size is None else (size.y, size.x)
    whole = source.levels[0]
    ground = Ground.of(Placement.of(source, 0, IMAGE_GRID), (whole.height, whole.width))
    if ground is not None:
        sides = ground.sides_at_middle
        return None if sides is None else (sides[0] * _UM_PER_METRE, sides[1] * _UM_PER_METRE)
    return (size.y * _UM_PER_METRE, size.x * _UM_PER_METRE) if size.unit == "m" else None


def _expect_one_meaning(request: ViewRequest) -> None:
    given = [
        name
        for name, value in (
            ("--level", request.level),
            ("--mpp or --gsd", request.pixel_um),
            ("--as-is", request.as_is),
        )
        if value is not None and value is not False
    ]
    if "--mpp or --gsd" in given and len(given) > 1:
        raise PlanError(f"{' and '.join(given)} ask for different pixels; give one of them")
    for name, value in (("--mpp or --gsd", request.pixel_um), ("--image-mpp", request.image_um)):
        if value is not None and not 0 < value < math.inf:
            raise PlanError(f"{name} {value} is no pixel size; give a number above 0")


def _expect_plausible(source: ImageSource, side: Um, model: ModelRequirements) -> None:
    """Refuse pixels of a size at which the model can't be right, whichever it was made for."""
    if model.plausible_um is None:
        return
    low, high = model.plausible_um
    if not (low <= min(side) and max(side) <= high):
        raise PlanError(
            f"the pixels of {source.path} measure {per_px(side)}, and model {model.name} was made for {low:g} to "
            f"{high:g} µm/px: that is mostly a wrong unit or another kind of image; give --image-mpp if the image's "
            f"pixel size is wrong, --level or --mpp for other pixels of it, or --as-is to take them as they are"
        )


def _compared(
    source: ImageSource, base: Um | None, level: Level, model: ModelRequirements, *, as_is: bool
) -> dict[str, str]:
    """Hold a level that is taken as it is against the model's pixel size."""
    assert model.pixel_um is not None
    target = model.pixel_um
    if base is None:
        if not as_is:
            raise PlanError(_no_size(source, model, target))
        return {"pixels": f"as they are, as asked: their size is not known, the model's is {per_px((target, target))}"}
    side = _side(base, level, source)
    if _off(side, target) >= IMPLAUSIBLE and not as_is:
        raise PlanError(_ten_times(source, side, model))
    if _off(side, target) <= CLOSE:
        return {}
    return {"pixels": f"as they are, as asked: {per_px(side)}, the model's are {per_px((target, target))}"}


def _no_size(source: ImageSource, model: ModelRequirements, target: float) -> str:
    return (
        f"{source.path} doesn't say what its pixels measure, and {per_px((target, target))} are wanted for model "
        f"{model.name}: objects of another size would be missed or invented; give --image-mpp (µm per pixel of "
        f"level 0), or --as-is to take its pixels as they are"
    )


def _ten_times(source: ImageSource, side: Um, model: ModelRequirements) -> str:
    assert model.pixel_um is not None
    target = model.pixel_um
    factor = _off(side, target)
    return (
        f"the pixels of {source.path} that come nearest measure {per_px(side)}, and model {model.name} was made for "
        f"{per_px((target, target))}: {factor:.3g} times off is mostly a wrong unit; give --image-mpp if the image's "
        f"pixel size is wrong, --mpp {target:g} to resample all the same, or --as-is to take its pixels as they are"
    )


def _view(source: ImageSource, level: Level, stated: tuple[float, float, str] | None, step: Um = (1.0, 1.0)) -> View:
    first = source.levels[0]
    downsample = first.height / level.height, first.width / level.width
    return View.model_validate({"level": level.index, "downsample": downsample, "step": step, "pixel_size": stated})


def _level(source: ImageSource, index: int) -> Level:
    if index >= len(source.levels):
        raise PlanError(f"level {index} is not in the image; it has levels 0 to {len(source.levels) - 1}")
    return source.levels[index]


def _without_one_size(source: ImageSource, base: Um | None, level: Level, model: ModelRequirements) -> dict[str, str]:
    """Note on a result of such a model: the same tissue at another magnification gives other objects."""
    if model.plausible_um is None:
        return {}
    low, high = model.plausible_um
    if base is None:
        return {
            "pixels": f"level {level.index} as it is, of a size that the image doesn't say: {model.name} has no pixel "
            f"size of its own (it may be right from {low:g} to {high:g} µm), so nothing tells whether it is; "
            f"--image-mpp says it"
        }
    return {
        "pixels": f"level {level.index} as it is, of {per_px(_side(base, level, source))}: {model.name} has no pixel "
        f"size of its own (it may be right from {low:g} to {high:g} µm), so slides of other magnifications give other "
        f"objects; --mpp sets one for all"
    }


def _side(base: Um, level: Level, source: ImageSource) -> Um:
    """Size of a level's pixel along y and x, in µm."""
    first = source.levels[0]
    return base[0] * first.height / level.height, base[1] * first.width / level.width


def _ratio(side: Um, target: float) -> Um:
    return side[0] / target, side[1] / target


def _off(side: Um, target: float) -> float:
    """By what factor a pixel is larger or smaller, along the axis where it differs more."""
    return max(max(ratio, 1 / ratio) for ratio in _ratio(side, target))
