"""Choice of the view that is segmented, from a person's request and what the model was made for.

A model sees objects of the size that it learnt. Where both pixel sizes are known, the level that comes within a tenth
of the model's is taken, else pixels are resampled to it. Where that can't be right, nothing is guessed: it is refused,
and the option is named that says what is meant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from tiling.errors import PlanError, SourceError
from tiling.geometry import IMAGE_GRID
from tiling.georeference.ground_areas import Ground
from tiling.georeference.placement import Placement
from tiling.selection.band_names import BandsDifferError, match_bands
from tiling.selection.chosen_bands import parse_bands, scaled_bands, scales_told
from tiling.selection.normalisation import Normalisation
from tiling.selection.outline import Outline
from tiling.selection.region import Region
from tiling.source import ImageSource, Level, open_source
from tiling.sources.damage import DamagedSegment, sentence
from tiling.sources.orientation import MEANINGS
from tiling.storage.place import Place
from tiling.view import View

CLOSE = 1.1
"""Up to this factor a pixel size is taken for another."""

IMPLAUSIBLE = 10.0
"""From this factor on a pixel size is taken for a mistake."""

MOST_DAMAGED = 1000
"""Segments that may be taken for no data; the run's card names each."""

_SHOWN = 8  # images of a file that a note names
_UM = 1e6

Um = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ViewRequest:
    """A person's request for pixels; all of it may be left open.

    Attributes:
        level: the pyramid level whose pixels are taken as they are.
        pixel_um: the pixel size to segment at.
        image_um: what a pixel of the image's level 0 measures, where the image doesn't say or is wrong.
        as_is: whether the pixels are taken as they are, whatever they measure.
        bands, region, normalise: as typed.
        scaled: whether values are taken in the bands' own units.
        crs, resampling: of a scene's grid, as typed.
        damaged: `mask` takes pixels of segments that don't decode for no data; without it, what needs them fails.
    """

    level: int | None = None
    pixel_um: float | None = None
    image_um: float | None = None
    as_is: bool = False
    bands: str | None = None
    scaled: bool = False
    z: int = 0
    t: int = 0
    series: str | None = None
    region: str | None = None
    normalise: str | None = None
    crs: str | None = None
    resampling: str = "auto"
    damaged: str | None = None

    @property
    def first_view(self) -> View:
        """All of the image that is meant, as it is."""
        return View(z=self.z, t=self.t, series=self.series, crs=self.crs, resampling=self.resampling)

    def as_given(self) -> dict[str, str]:
        """The request as it was given, the level apart; options left open are left out."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "level"}
        return {name: str(value) for name, value in given.items() if value not in (None, False, 0, "auto")}


@dataclass(frozen=True, slots=True)
class ModelRequirements:
    """Requirements of a model: one pixel size, or between which ones it can be right; its bands, where known."""

    name: str
    pixel_um: float | None
    dtype: str
    plausible_um: Um | None = None
    bands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ViewChoice:
    """Choice of what is segmented: `level` of the image, or of the view where there is one; and notes on it."""

    level: int
    view: View | None
    notes: dict[str, str]
    outline: Outline | None = None


def choose_view(image: Place | ImageSource, request: ViewRequest, model: ModelRequirements) -> ViewChoice:
    """Decide which pixels of an image are segmented, given its place or the image itself, which stays open.

    Raises:
        SourceError: the image can't be opened, or has no such z, t or band.
        PlanError: what is asked for contradicts itself, lies outside the image, or is not plausible.
        AnnotationError: a region's file without polygons on the image.
    """
    grid = {"crs": request.crs, "resampling": request.resampling}
    first = request.first_view
    with image.viewed(first) if isinstance(image, ImageSource) else open_source(image, first) as source:
        view, notes = _choose_scale(source, request, model)
        notes = _which(source, request) | notes | as_stored(source) | resampled_as(source)
        series = source.series if source.images else None
        bands, formulas = parse_bands(source, request.bands)
        if request.bands is None and (bands := _by_name(source, model)) is not None:
            taken = ", ".join(f"{model.bands[at]} from band {band + 1}" for at, band in enumerate(bands))
            notes |= {"bands": f"by name, since their order differs: {taken}"}
        if request.scaled and not formulas:
            bands, formulas = None, scaled_bands(source, bands)
        notes |= scales_told(source, formulas)
        chosen = {"z": request.z, "t": request.t, "series": series, "bands": bands, "formulas": formulas, **grid}
        view = view.model_copy(update=chosen)
        level, outline = source.levels[view.level], None
        if request.region is not None:
            region = Region.parse(request.region, source)
            outline = region.outline
            digest = outline.digest if outline is not None else None
            view = view.model_copy(update={"region": region.on(view, level.height, level.width), "outline": digest})
        if request.normalise is not None:
            asked = Normalisation.parse(request.normalise)
            bands = view.bands if view.bands is not None else tuple(range(len(formulas or source.bands)))
            every = tuple(range(len(source.bands) + len(source.alpha))) if source.alpha and not formulas else None
            whole = first.model_copy(update={"series": series, "bands": every, "formulas": formulas})
            with source.viewed(whole) as measured:
                view = view.model_copy(update={"stretch": asked.stretch(measured, bands, model.dtype)})
        if request.damaged is not None:
            damaged = _damaged(source, view.level)
            view = view.model_copy(update={"damaged": tuple(each.key for each in damaged)})
            notes |= {"damaged": sentence(damaged)} if damaged else {}
    if view.is_plain:
        return ViewChoice(view.level, None, notes)
    return ViewChoice(0, view, notes | {"view": str(view)}, outline)


def _damaged(source: ImageSource, level: int) -> list[DamagedSegment]:
    """Segments of the level that don't decode.

    Raises:
        SourceError: so many that the file as a whole is damaged.
    """
    found = source.damaged_segments(level)
    if len(found) > MOST_DAMAGED:
        raise SourceError(
            f"{source.path}: {len(found)} segments don't decode, more than the {MOST_DAMAGED} that may be taken for no "
            f"data: {found[0].reason}; restore the file"
        )
    return found


def _which(source: ImageSource, request: ViewRequest) -> dict[str, str]:
    """Clause on the image that is taken of several, its focal plane and time; nothing where there is no choice."""
    parts = [message] if (message := which_image(source, request.series)) else []
    if source.focal_planes > 1:
        parts.append(f"z {request.z} of {source.focal_planes}")
    if source.times > 1:
        parts.append(f"t {request.t} of {source.times}")
    return {"image": "; ".join(parts)} if parts else {}


def which_image(source: ImageSource, asked: str | None, option: str = "--series") -> str:
    """Clause on the image of a file of several that is taken, why, and what others there are; empty if it is one."""
    if not source.images:
        return ""
    why = "as asked" if asked is not None else "the largest"
    if asked is None and source.images[source.series].pixel_size is not None:
        why = "the largest of those with a pixel size"
    others = [f"{at}: {image}" for at, image in enumerate(source.images) if at != source.series]
    listed = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
    return (
        f"series {source.series} of {len(source.images)}, {source.images[source.series]}, {why}; {option} takes "
        f"another ({listed})"
    )


def as_stored(source: ImageSource) -> dict[str, str]:
    """Note on an image that asks to be turned, which photographs' viewers do and this field's don't."""
    if source.orientation == 1:
        return {}
    return {
        "orientation": f"the file says orientation {source.orientation} ({MEANINGS[source.orientation]}): its pixels "
        f"are taken as they are stored, as QGIS and napari show them; a viewer of photographs turns them"
    }


def resampled_as(source: ImageSource) -> dict[str, str]:
    """Note on bands of a scene that don't lie on its grid as they are."""
    if not source.resampled:
        return {}
    ways: dict[str, list[str]] = {}
    for band, way in source.resampled:
        ways.setdefault(way, []).append(band)
    told = "; ".join(f"{', '.join(bands[:_SHOWN])}{' …' * (len(bands) > _SHOWN)} {way}" for way, bands in ways.items())
    return {"resampled": f"onto the scene's grid: {told}"}


def ground_um(source: ImageSource) -> Um | None:
    """Size of a pixel of level 0 along y and x, in µm: on the ground at its middle, where a map is off."""
    size = source.levels[0].pixel_size
    if size is None or size.unit == "um":
        return None if size is None else (size.y, size.x)
    whole = source.levels[0]
    ground = Ground.of(Placement.of(source, 0, IMAGE_GRID), (whole.height, whole.width))
    if ground is not None:
        sides = ground.sides_at_middle
        return None if sides is None else (sides[0] * _UM, sides[1] * _UM)
    return (size.y * _UM, size.x * _UM) if size.unit == "m" else None


def _choose_scale(source: ImageSource, request: ViewRequest, model: ModelRequirements) -> tuple[View, dict[str, str]]:
    """The level and the step, and what is worth saying of them."""
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
        found = f"{_um(side)}, for {_um((target, target))}"
        return _view(source, level, stated), {"pixels": f"level {level.index} as it is: {found}"}
    finer = [each for each in source.levels if max(_ratio(_side(base, each, source), target)) <= 1.0 + 1e-9]
    level = finer[-1] if finer else source.levels[0]
    side = _side(base, level, source)
    step = target / side[0], target / side[1]
    text = f"resampled from level {level.index} of {_um(side)} to {_um((target, target))}"
    notes = {"pixels": text if min(step) >= 1 else f"{text}: finer than the image is, so that detail is missing"}
    return _view(source, level, stated, step), notes


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
            f"the pixels of {source.path} measure {_um(side)}, and model {model.name} was made for {low:g} to {high:g} "
            f"µm/px: that is mostly a wrong unit or another kind of image; give --image-mpp if the image's pixel size "
            f"is wrong, --level or --mpp for other pixels of it, or --as-is to take them as they are"
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
        return {"pixels": f"as they are, as asked: their size is not known, the model's is {_um((target, target))}"}
    side = _side(base, level, source)
    if _off(side, target) >= IMPLAUSIBLE and not as_is:
        raise PlanError(_ten_times(source, side, model))
    if _off(side, target) <= CLOSE:
        return {}
    return {"pixels": f"as they are, as asked: {_um(side)}, the model's are {_um((target, target))}"}


def _no_size(source: ImageSource, model: ModelRequirements, target: float) -> str:
    return (
        f"{source.path} doesn't say what its pixels measure, and {_um((target, target))} are wanted for model "
        f"{model.name}: objects of another size would be missed or invented; give --image-mpp (µm per pixel of "
        f"level 0), or --as-is to take its pixels as they are"
    )


def _ten_times(source: ImageSource, side: Um, model: ModelRequirements) -> str:
    assert model.pixel_um is not None
    target = model.pixel_um
    factor = _off(side, target)
    return (
        f"the pixels of {source.path} that come nearest measure {_um(side)}, and model {model.name} was made for "
        f"{_um((target, target))}: {factor:.3g} times off is mostly a wrong unit; give --image-mpp if the image's "
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
        "pixels": f"level {level.index} as it is, of {_um(_side(base, level, source))}: {model.name} has no pixel size "
        f"of its own (it may be right from {low:g} to {high:g} µm), so slides of other magnifications give other "
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


def _um(side: Um) -> str:
    """A pixel size for people: in µm, in metres where it is a map's."""
    scale, unit = (1.0, "µm") if max(side) < 1000 else (1e-6, "m")
    y, x = (f"{value * scale:.4g}" for value in side)
    return f"{y} {unit}/px" if y == x else f"{y} x {x} {unit}/px"


def _by_name(source: ImageSource, model: ModelRequirements) -> tuple[int, ...] | None:
    """The image's bands in the model's order where their names say that it is another; None where it is the same."""
    try:
        return match_bands(source.bands, model.bands)
    except BandsDifferError as error:
        numbers = ",".join(str(number + 1) for number in range(len(model.bands)))
        raise PlanError(
            f"the bands of {source.path} are {', '.join(source.bands)} and model {model.name} takes "
            f"{', '.join(model.bands)}: by others it would see something else; give --bands with the image's in the "
            f"model's order, for example --bands {numbers} if they are meant as they stand, or another model"
        ) from error
