"""Reader of runs for napari: the image, the mask over it, and objects, all as lazy pyramids (npe2's contribution).

napari finds it through the manifest `napari.yaml`; it is no dependency and never imported here. For folders it asks
which reader to take, since others read folders too; a run's `run.json` is this one's alone and opens at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiling.runs.run import Run
    from tiling.source import ImageSource

Layer = tuple[Any, dict[str, Any], str]
Reader = Callable[[str | Sequence[str]], list[Layer]]

CARD = "run.json"
_UNITS = {"um": "um", "m": "m"}


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader of a run's folder or its `run.json`; None for everything else, which napari then gives to others."""
    return read_run if isinstance(path, str) and (_folder(path) / CARD).is_file() else None


def read_run(path: str | Sequence[str]) -> list[Layer]:
    """The layers of a run: its image, its mask, its objects where they are numbered, and probabilities that were kept.

    Raises:
        RunError: the folder holds no run.
        SourceError: the image is gone.
    """
    from tiling.runs.run import Run

    return layers_of(Run.open(_folder(path if isinstance(path, str) else path[0])))


def layers_of(run: Run) -> list[Layer]:
    """The same of a run that is open, wherever it is.

    Raises:
        SourceError: the image is gone.
    """
    probabilities = run.open_probabilities(read_only=True)
    layers = [_image(run, run.open_source()), _mask(run), *_objects(run)]
    if probabilities is not None:
        names = [item.name for item in run.card.probabilities]
        more = {"name": names, "channel_axis": 0, "visible": False, "contrast_limits": [0, 255]}
        layers.append((probabilities.pyramid.lazy(), {**_place(run, on_mask=True), **more}, "image"))
    return layers


def _folder(path: str) -> Path:
    return Path(path).parent if Path(path).name == CARD else Path(path)


def _image(run: Run, source: ImageSource) -> Layer:
    levels = [source.lazy(level.index) for level in source.levels[run.card.image.level :]]
    is_rgb = source.photometric in {"rgb", "ycbcr"} and len(source.bands) == 3
    looks: dict[str, Any] = {"name": source.path.name, "rgb": True}
    if not is_rgb:
        looks = {"name": list(source.bands), "channel_axis": -1}
    return levels, {**looks, "multiscale": True, **_place(run, on_mask=False)}, "image"


def _mask(run: Run) -> Layer:
    """Labels in the classes' colours; what was not predicted is grey."""
    colors: dict[int | None, str] = {label: item.color for label, item in enumerate(run.classes)}
    colors |= {0: "transparent", 255: "#808080", None: "transparent"}
    named = {"index": [*range(len(run.classes)), 255], "class": [*(item.name for item in run.classes), "not predicted"]}
    looks = {"name": f"mask of {run.card.model.name}", "colormap": colors, "features": named, "opacity": 0.5}
    return _labels(run, run.open_mask(read_only=True).pyramid.lazy(), looks)


def _objects(run: Run) -> list[Layer]:
    """Numbered objects in colours of napari's own, hidden at first; none where they aren't those of the mask."""
    from tiling.objects.image import ObjectImage
    from tiling.objects.record import built_objects

    if built_objects(run, run.ledger.fold(held=True)) is None:
        return []
    objects = ObjectImage.open(run.objects_path, read_only=True)
    classes = [run.classes[label].name if number else "" for number, label in enumerate(objects.classes.tolist())]
    named = {"index": [*range(objects.count + 1)], "class": classes, "pixels": objects.pixels.tolist()}
    looks = {"name": f"objects of {run.card.model.name}", "features": named, "visible": False}
    return [_labels(run, objects.pyramid.lazy(), looks)]


def _labels(run: Run, levels: list[Any], looks: dict[str, Any]) -> Layer:
    # Of labels napari unwraps a list of one level, and then fails where a pyramid was announced.
    is_pyramid = len(levels) > 1
    looks |= {"multiscale": is_pyramid, **_place(run, on_mask=True)}
    return levels if is_pyramid else levels[0], looks, "labels"


def _place(run: Run, *, on_mask: bool) -> dict[str, Any]:
    """Scale, and where the first pixel's centre lies: a region's, and the shift of a mask whose pixels are its own."""
    size = run.pixel_size
    y, x = (size.y, size.x) if size is not None and size.unit in _UNITS else (1.0, 1.0)
    units = {"units": [_UNITS[size.unit]] * 2} if size is not None and size.unit in _UNITS else {}
    top, left = run.corner_px
    if not on_mask:
        return {"scale": [y, x], "translate": [top * y, left * x], **units}
    scale = run.plan.grid.scale
    mask_y, mask_x = y / float(scale[0]), x / float(scale[1])
    return {"scale": [mask_y, mask_x], "translate": [top * y + (mask_y - y) / 2, left * x + (mask_x - x) / 2], **units}
