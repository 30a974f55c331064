"""`close-ups/`: a few places of the image at full resolution with outlines of what was found, to judge a result by.

Outlines are those of the run's objects, as they are numbered and counted; of the mask's classes where it has none, or
where they follow a rule of the user's own, which only the process that was asked to trust it loads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tiling.errors import SourceError
from tiling.export.close_up_places import SIDE_PX, Corner, ranked_places
from tiling.export.overlay import borders, enlarged, sampled
from tiling.geometry import Box
from tiling.objects.build import RunPixels
from tiling.objects.nearby import nearby_objects
from tiling.objects.record import asked_objects
from tiling.objects.rule import builtin_rule
from tiling.objects.spec import ObjectSpec
from tiling.runs.ledger import LedgerState
from tiling.runs.mask import Mask
from tiling.sources.downsample import ScreenView, block_mean, display_range, to_display
from tiling.storage.picture import write_png
from tiling.storage.place import Place

if TYPE_CHECKING:
    from tiling.runs.run import Run
    from tiling.source import ImageSource

PLACES = {
    "densest": "where most is found",
    "median": "where a middling amount is found",
    "sparsest": "where least is found, but something",
    "nothing": "where nothing is found, though there is most to see",
    "uncertain": "where probabilities are nearest to one half",
    "seam": "across the corner of four tiles",
    "edge": "where the detail ends, as at the edge of tissue or of data",
}
"""Names of close-ups, in the order in which they are shown, and what each shows."""

COLORS = ("#00e5ff", "#ffee00", "#39ff14", "#ff2bd6", "#ffffff", "#000000", "#ff3b00", "#0033ff")
"""Colours of outlines, of which those are taken that lie furthest from the picture's own."""

TRIES = 12
"""Places that are looked at for one close-up, from the best on, before it is given up."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A place that is shown.

    Attributes:
        picture: `(y, x, 3)`, of the image alone.
        numbers: `(y, x)`, of what is outlined; 0 where nothing was found.
        labels: of each number.
    """

    picture: NDArray[np.uint8]
    numbers: NDArray[np.int32]
    labels: NDArray[np.uint8]

    @property
    def holds_some(self) -> bool:
        return bool(self.numbers.any())

    def outlined(self) -> NDArray[np.uint8]:
        """The label of each pixel of an outline, 0 elsewhere: what touches has one each."""
        ends = borders(np.pad(self.numbers, 1, mode="edge"))
        return np.where(ends, self.labels[self.numbers], np.uint8(0))


def write_close_ups(
    run: Run, source: ImageSource, state: LedgerState, view: ScreenView | None = None
) -> dict[str, Image.Image]:
    """Draw each place that the run has, and return the pictures by their files; those of an earlier mask go.

    `view` is the image at screen size, where it is at hand.
    """
    mask, level = run.open_mask(read_only=True), run.card.image.level
    view = view or ScreenView.of(source, level, run.plan.extent)
    shape, factor = _shape(run, view.factor), view.factor
    labels = sampled(mask, _steps(run, factor), shape)
    places = ranked_places(run, state, view, labels, _doubts(run, shape, factor))
    is_8_bit = run.card.image.dtype == "uint8"
    limits = (0.0, 255.0) if is_8_bit or not places else display_range(block_mean(source, level, factor))
    found = _Found(run, mask, asked_objects(state))
    shown = _drawn(run, source, found, places, limits)
    stains = np.concatenate([each.picture.reshape(-1, 3) for each in shown.values()]) if shown else np.zeros((0, 3))
    colors = dict(zip(found.outlined, contrasting(stains, len(found.outlined)), strict=True)) if shown else {}
    pictures: dict[str, Image.Image] = {}
    for name in PLACES:
        path = run.close_ups / f"{name}.png"
        if name not in shown:
            path.unlink(missing_ok=True)
            continue
        picture, ends = shown[name].picture, shown[name].outlined()
        for label, color in colors.items():
            picture[ends == label] = _rgb(color).astype(np.uint8)
        pictures[f"{run.close_ups.name}/{name}.png"] = image = Image.fromarray(picture)
        write_png(path, image, below=run.path)
    return pictures


class _Found:
    """Objects of a run as they are outlined, else areas of its classes.

    Attributes:
        outlined: labels that have outlines; a border between objects has none of its own.
    """

    def __init__(self, run: Run, mask: Mask, spec: ObjectSpec | None) -> None:
        self._run, self._mask = run, mask
        self._spec = None if spec is None or spec.is_own else spec
        self._pixels = None if self._spec is None else RunPixels(run)
        border = None if self._spec is None else self._spec.border
        self.outlined = [label for label in range(1, len(run.classes)) if label != border]

    def of(self, box: Box) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Numbers in a box of the mask, and the label of each."""
        if self._spec is not None and self._pixels is not None:
            return nearby_objects(self._pixels, builtin_rule(self._spec), self._spec, box, self._run.plan.mask)
        labels = self._mask.read(box)
        classes = np.arange(256, dtype=np.uint8)
        classes[len(self._run.classes) :] = 0
        return classes[labels].astype(np.int32), classes


def _drawn(
    run: Run, source: ImageSource, found: _Found, places: Mapping[str, list[Corner]], limits: tuple[float, float]
) -> Mapping[str, Drawn]:
    """The best place of each kind that decodes and isn't shown already.

    Two names of one place would say that a mask was looked at in more places than it was.
    """
    is_empty = "nothing" in places
    taken: list[Corner] = []
    shown: dict[str, Drawn] = {}
    for name in PLACES:
        free = (corner for corner in places.get(name, ()) if not any(_overlap(corner, other) for other in taken))
        for corner in islice(free, TRIES):
            drawn = _pixels(run, source, found, corner, limits)
            if drawn is not None and (is_empty or name == "uncertain" or drawn.holds_some):
                taken.append(corner)
                shown[name] = drawn
                break
    return shown


def _overlap(one: Corner, other: Corner) -> bool:
    """True of places that share more than a quarter of what they show."""
    return all(abs(a - b) < SIDE_PX // 2 for a, b in zip(one, other, strict=True))


def close_up_paths(run: Run) -> Iterator[tuple[str, Place]]:
    """Close-ups that the run may have: what each shows, and where it is."""
    for name, shown in PLACES.items():
        yield shown, run.close_ups / f"{name}.png"


def contrasting(picture: NDArray[np.number], count: int) -> list[str]:
    """Colours for outlines: each as far as can be from what a picture is mostly made of, and from those before it."""
    pixels = picture.reshape(-1, 3)[:: max(1, picture.size // 30_000)].astype(np.float32)
    taken: list[str] = []

    far = {color: float(np.percentile(np.linalg.norm(pixels - _rgb(color), axis=1), 5)) for color in COLORS}

    def distance(color: str) -> float:
        return min([far[color], *(float(np.linalg.norm(_rgb(color) - _rgb(other))) for other in taken)])

    while len(taken) < min(count, len(COLORS)):
        taken.append(max((color for color in COLORS if color not in taken), key=distance))
    return [taken[number % len(taken)] for number in range(count)]


def _shape(run: Run, factor: int) -> tuple[int, int]:
    height, width = run.plan.extent
    return -(-height // factor), -(-width // factor)


def _steps(run: Run, factor: int) -> tuple[float, float]:
    scale = run.plan.grid.scale
    return float(scale[0] * factor), float(scale[1] * factor)


def _doubts(run: Run, shape: tuple[int, int], factor: int) -> NDArray[np.uint8] | None:
    """Nearness of the probabilities to one half at screen size, `(y, x)` of 0 to 255; None where the run keeps none."""
    probabilities = run.open_probabilities(read_only=True)
    if probabilities is None:
        return None
    values = sampled(probabilities, _steps(run, factor), shape)
    return np.minimum(values, 255 - values).max(axis=0) * 2


def _pixels(run: Run, source: ImageSource, found: _Found, corner: Corner, limits: tuple[float, float]) -> Drawn | None:
    """One place as it is shown; None where the image doesn't decode there."""
    level, scale, (height, width) = run.card.image.level, run.plan.grid.scale, run.plan.extent
    box = Box(*corner, min(corner[0] + SIDE_PX, height), min(corner[1] + SIDE_PX, width))
    try:
        pixels = source.read(level, box).astype(np.float32)
    except SourceError:
        return None
    picture = enlarged(np.ascontiguousarray(to_display(pixels, limits)), max(1, round(float(max(scale)))))
    y0, x0, y1, x1 = (int(at * of) for at, of in zip((box.y0, box.x0, box.y1, box.x1), (*scale, *scale), strict=True))
    numbers, labels = found.of(Box(y0, x0, max(y1, y0 + 1), max(x1, x0 + 1)).intersect(run.plan.mask))
    rows = np.arange(picture.shape[0]) * numbers.shape[0] // picture.shape[0]
    cols = np.arange(picture.shape[1]) * numbers.shape[1] // picture.shape[1]
    return Drawn(picture, numbers[np.ix_(rows, cols)], labels)


def _rgb(color: str) -> NDArray[np.float32]:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
