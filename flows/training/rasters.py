"""Large annotated images as examples of which only the crops are ever read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.config.recipe import RasterConfig
from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.selection.alignment import Alignment
from tiling.selection.band_names import BandsDifferError, match_bands
from tiling.selection.choose_view import which_image
from tiling.selection.geojson import read_geojson
from tiling.selection.polygons import Polygons
from tiling.source import ImageSource, Level, open_source
from tiling.view import View
from unet_core.bundles.card import ModelCard
from unet_core.errors import TrainingError
from unet_core.training.data import LazyExample, Pixels

logger = logging.getLogger(__name__)

_GEOJSON = {".geojson", ".json"}
# Labels are looked through in squares of this side, so that no process holds all of them.
_SCAN_PX = 1024

Labels = Callable[[Box], NDArray[Any]]


def raster_examples(config: RasterConfig, card: ModelCard) -> list[LazyExample]:
    """The examples of one image: one for training, or its squares for validation.

    Raises SourceError or AnnotationError for a file that can't be read, and TrainingError for labels that don't
    fit the image or the card. Labels of a raster are scanned once, window by window, for unknown classes.
    """
    source = _opened(config, card)
    if config.level >= len(source.levels):
        raise TrainingError(
            f"{config.image} has levels 0 to {len(source.levels) - 1}, not {config.level}: correct data.rasters.level"
        )
    level = source.levels[config.level]
    box = _box(config, level)
    if config.labels.suffix.lower() in _GEOJSON:
        labels = _drawn(config, card, source, level)
    else:
        labels = _stored(config, source, level)
        _check_classes(config, card, labels, box)

    def lazy(part: Box) -> LazyExample:
        def read(y0: int, x0: int, y1: int, x1: int) -> Pixels:
            wanted = Box(y0, x0, y1, x1).translate(part.y0, part.x0)
            return source.read(level.index, wanted), labels(wanted).astype(np.uint8)

        shape = (part.height, part.width, len(source.bands))
        name = f"{config.image.name} level {level.index} {part}"
        return LazyExample(name, shape, source.dtype, len(card.classes), read, config.group)

    parts = [box] if config.role == "training" else list(_squares(box, config.validation_px))
    return [lazy(part) for part in parts]


def _opened(config: RasterConfig, card: ModelCard) -> ImageSource:
    """The image, with its bands in the card's order where their names say that theirs is another."""
    source = open_source(config.image, View(series=config.series))
    if message := which_image(source, config.series, "data.rasters.series"):
        logger.info("%s: %s", config.image, message)
    try:
        bands = match_bands(source.bands, card.bands)
    except BandsDifferError as error:
        source.close()
        raise TrainingError(
            f"the bands of {config.image} are {', '.join(source.bands)} and the card's {', '.join(card.bands)}: the "
            "model would learn one for the other; correct card.bands, or name the image's bands"
        ) from error
    if bands is None:
        return source
    source.close()
    return open_source(config.image, View(series=config.series, bands=bands))


def _box(config: RasterConfig, level: Level) -> Box:
    if config.box is None:
        return level.box
    y0, x0, y1, x1 = config.box
    if not (0 <= y0 < y1 <= level.height and 0 <= x0 < x1 <= level.width):
        raise TrainingError(
            f"box {list(config.box)} is not inside {config.image} of {level.height} x {level.width} px at level "
            f"{level.index}: give y0, x0, y1, x1 with y0 < y1 and x0 < x1"
        )
    return Box(y0, x0, y1, x1)


def _drawn(config: RasterConfig, card: ModelCard, source: ImageSource, level: Level) -> Labels:
    """Labels that are drawn from polygons."""
    names = {item.name: label for label, item in enumerate(card.classes)}
    classes = names if config.label_kind == "classes" else None
    polygons = read_geojson(
        config.labels, classes, config.coordinates, source.georeference, config.class_property, source.bounds_px
    )
    first = source.levels[0]
    _check_on_image(config, polygons, first.box)
    downsample = first.height / level.height, first.width / level.width
    return lambda box: polygons.labels(box, downsample)


def _check_on_image(config: RasterConfig, polygons: Polygons, image: Box) -> None:
    if not polygons.touches(image):
        raise TrainingError(
            f"none of the {len(polygons)} polygons in {config.labels} lies on {config.image}: everything would be "
            f'background; data.rasters.coordinates is "{config.coordinates}", is the file in others?'
        )


def _stored(config: RasterConfig, image: ImageSource, level: Level) -> Labels:
    """Labels that are read from a raster that lies on the level; one level of a pyramid may be it."""
    source = open_source(config.labels)
    if source.images:
        raise TrainingError(
            f"labels {config.labels} hold {len(source.images)} images, and nothing says which of them are those of "
            f"{config.image}; give a file of one"
        )
    fitting = [each for each in source.levels if (each.height, each.width) == (level.height, level.width)]
    index = (fitting or source.levels)[0].index
    if len(source.bands) != 1 or not np.issubdtype(source.dtype, np.integer):
        raise TrainingError(
            f"labels {config.labels} are {len(source.bands)} bands of {source.dtype}: labels are one band of whole "
            "numbers; export class numbers, not a coloured picture of them"
        )
    try:
        aligned = Alignment.of(image, level.index, source, index)
    except SourceError as error:
        raise TrainingError(str(error)) from error

    def stored(box: Box) -> NDArray[Any]:
        labels_HW = aligned.turned(source.read(index, aligned.box(box))[:, :, 0])
        return labels_HW > 0 if config.label_kind == "mask" else labels_HW

    return stored


def _check_classes(config: RasterConfig, card: ModelCard, labels: Labels, box: Box) -> None:
    for part in _squares(box, _SCAN_PX):
        labels_HW = labels(part)
        least, greatest = int(labels_HW.min()), int(labels_HW.max())
        if least < 0 or greatest >= len(card.classes):
            raise TrainingError(
                f"labels {config.labels} hold class {least if least < 0 else greatest} in {part}, the card's go from 0 "
                f"to {len(card.classes) - 1}: add the class to the card, correct the labels, or set "
                'data.rasters.label_kind = "mask"'
            )


def _squares(box: Box, side: int) -> Iterator[Box]:
    for y in range(box.y0, box.y1, side):
        for x in range(box.x0, box.x1, side):
            yield Box(y, x, y + side, x + side).intersect(box)
