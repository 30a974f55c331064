"""Choice of the view that is segmented, from a person's request and what the model was made for.

A model sees objects of the size that it learnt. Where both pixel sizes are known, the level that comes within a tenth
of the model's is taken, else pixels are resampled to it. Where that can't be right, nothing is guessed: it is refused,
and the option is named that says what is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

from tiling.errors import PlanError, SourceError
from tiling.selection.band_names import BandsDifferError, match_bands
from tiling.selection.chosen_bands import parse_bands, scaled_bands, scales_told
from tiling.selection.chosen_scale import choose_scale
from tiling.selection.normalisation import Normalisation
from tiling.selection.outline import Outline
from tiling.selection.region import Region
from tiling.selection.view_request import ModelRequirements, ViewRequest
from tiling.source import ImageSource, open_source
from tiling.sources.damage import DamagedSegment, sentence
from tiling.sources.orientation import MEANINGS
from tiling.storage.place import Place
from tiling.view import View

MOST_DAMAGED = 1000
"""Segments that may be taken for no data; the run's card names each."""

_SHOWN = 8  # images of a file that a note names


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
        view, notes = choose_scale(source, request, model)
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
    ways_named = "; ".join(
        f"{', '.join(bands[:_SHOWN])}{' …' * (len(bands) > _SHOWN)} {way}" for way, bands in ways.items()
    )
    return {"resampled": f"onto the scene's grid: {ways_named}"}


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
