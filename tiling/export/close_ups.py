"""`close-ups/`: a few places of the image at full resolution with the mask's outlines, to judge a result by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tiling.errors import SourceError
from tiling.export.overlay import outline, sampled
from tiling.geometry import Box
from tiling.runs.ledger import LedgerState, TileState
from tiling.runs.mask import Mask
from tiling.sources.downsample import block_mean, display_range, screen_factor, to_display
from tiling.storage.picture import write_png
from tiling.storage.place import Place

if TYPE_CHECKING:
    from tiling.runs.run import Run
    from tiling.source import ImageSource

SIDE_PX = 256
"""Pixels of the segmented level that one shows, and that its picture has at least."""

PLACES = {
    "densest": "where most is found",
    "median": "where a middling amount is found",
    "sparsest": "where least is found, but something",
    "uncertain": "where probabilities are nearest to one half",
    "seam": "across the corner of four tiles",
    "edge": "where tiles that were computed meet skipped ones",
}
"""Names of close-ups, in the order in which they are shown, and what each shows."""

COLORS = ("#00e5ff", "#ffee00", "#39ff14", "#ff2bd6", "#ffffff", "#000000", "#ff3b00", "#0033ff")
"""Colours of outlines, of which those are taken that lie furthest from the picture's own."""

Corner = tuple[int, int]
Shares = NDArray[np.float32]


def write_close_ups(run: Run, source: ImageSource, state: LedgerState) -> list[str]:
    """Draw each place that the run has, and return the names of the files; pictures of an earlier mask go."""
    mask = run.open_mask(read_only=True)
    factor = screen_factor(source, run.card.image.level, run.plan.extent)
    shares = _shares(run, mask, factor)
    doubts = None if shares is None else _doubts(run, (shares.shape[0], shares.shape[1]), factor)
    found = {} if shares is None else chosen_places(run, state, shares, factor, doubts)
    is_8_bit = run.card.image.dtype == "uint8"
    limits = (0.0, 255.0) if is_8_bit or not found else display_range(block_mean(source, run.card.image.level, factor))
    shown = {name: drawn for name, place in found.items() if (drawn := _pixels(run, source, mask, place, limits))}
    stains = np.concatenate([picture.reshape(-1, 3) for picture, _ in shown.values()]) if shown else np.zeros((0, 3))
    colors = contrasting(stains, len(run.classes) - 1) if shown else []
    for name in PLACES:
        path = run.close_ups / f"{name}.png"
        if name not in shown:
            path.unlink(missing_ok=True)
            continue
        picture, labels = shown[name]
        for label, color in enumerate(colors, start=1):
            picture[outline(labels == label)] = _rgb(color).astype(np.uint8)
        write_png(path, Image.fromarray(picture), below=run.path)
    return [f"{run.close_ups.name}/{name}.png" for name in shown]


def close_up_paths(run: Run) -> Iterator[tuple[str, Place]]:
    """Close-ups that the run may have: what each shows, and where it is."""
    for name, shown in PLACES.items():
        yield shown, run.close_ups / f"{name}.png"


def chosen_places(
    run: Run, state: LedgerState, shares: Shares, factor: int, doubts: Shares | None = None
) -> Mapping[str, Corner]:
    """The first pixel of each close-up, in pixels of the segmented level.

    Args:
        shares: where something was found, `(y, x)` at one pixel of `factor` x `factor`.
        doubts: how near to one half the probabilities are, 0 to 1, on the same grid, where the run keeps them.
    """
    side = max(1, SIDE_PX // factor)
    near = ndimage.uniform_filter(shares, side, mode="constant")
    cells = [
        (float(near[y, x]), y, x)
        for y in range(side // 2, shares.shape[0], side)
        for x in range(side // 2, shares.shape[1], side)
    ]
    found = sorted(cell for cell in cells if cell[0] > 1e-6)
    places: dict[str, Corner] = {}
    if found:
        kinds = {"densest": found[-1], "median": found[len(found) // 2], "sparsest": found[0]}
        places = {name: _corner(run, y * factor, x * factor) for name, (_, y, x) in kinds.items()}

    def best(centres: Sequence[Corner]) -> Corner | None:
        def share(centre: Corner) -> float:
            y, x = (min(at // factor, size - 1) for at, size in zip(centre, near.shape, strict=True))
            return float(near[y, x])

        top = max(centres, key=share, default=None)
        return None if top is None or share(top) <= 1e-6 else _corner(run, *top)

    others = {
        "uncertain": None if doubts is None else _most_uncertain(run, doubts, factor),
        "seam": best(_tile_corners(run)),
        "edge": best(_edges(run, state)),
    }
    # Two names of one place would say that a mask was looked at in more places than it was.
    for name, place in others.items():
        if place is not None and place not in places.values():
            places[name] = place
    return {name: places[name] for name in PLACES if name in places and _is_first(name, places)}


def _is_first(name: str, places: Mapping[str, Corner]) -> bool:
    return next(other for other in PLACES if places.get(other) == places[name]) == name


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


def _shares(run: Run, mask: Mask, factor: int) -> Shares | None:
    """Place where something was found, at screen size; None where there is nothing to look at."""
    scale, (height, width) = run.plan.grid.scale, run.plan.extent
    shape = -(-height // factor), -(-width // factor)
    labels = sampled(mask, (float(scale[0] * factor), float(scale[1] * factor)), shape)
    covered = (labels > 0) & (labels < len(run.classes))
    return covered.astype(np.float32) if covered.any() else None


def _doubts(run: Run, shape: tuple[int, int], factor: int) -> Shares | None:
    """Nearness of the probabilities to one half at screen size, `(y, x)` of 0 to 1; None where the run keeps none."""
    probabilities = run.open_probabilities(read_only=True)
    if probabilities is None:
        return None
    scale = run.plan.grid.scale
    values = sampled(probabilities, (float(scale[0] * factor), float(scale[1] * factor)), shape)
    return (1 - np.abs(values / np.float32(127.5) - 1)).max(axis=0)


def _most_uncertain(run: Run, doubts: Shares, factor: int) -> Corner | None:
    """The place whose square is the least certain on the whole; the first of equal ones."""
    near = ndimage.uniform_filter(doubts, max(1, SIDE_PX // factor), mode="constant")
    y, x = (int(at) for at in np.unravel_index(int(near.argmax()), near.shape))
    return _corner(run, y * factor, x * factor) if near[y, x] > 0 else None


def _corner(run: Run, y: int, x: int) -> Corner:
    """The first pixel of a square around a place, moved into the image."""
    height, width = run.plan.extent
    return max(0, min(y - SIDE_PX // 2, height - SIDE_PX)), max(0, min(x - SIDE_PX // 2, width - SIDE_PX))


def _tile_corners(run: Run) -> list[Corner]:
    """Places where four tiles meet; where the grid has one row or column, where two do."""
    tiles, (height, width) = list(run.plan.tiles()), run.plan.extent
    rows = sorted({tile.core.y0 for tile in tiles} - {0}) or [height // 2]
    cols = sorted({tile.core.x0 for tile in tiles} - {0}) or [width // 2]
    return [(y, x) for y in rows for x in cols] if len(tiles) > 1 else []


def _edges(run: Run, state: LedgerState) -> list[Corner]:
    """Middles of the sides that a computed tile shares with a skipped one."""
    rows, cols = run.plan.shape
    states = np.asarray(state.states).reshape(rows, cols)
    is_done, is_skipped = states == TileState.DONE, states == TileState.SKIPPED
    found: list[Corner] = []
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        beside = np.zeros_like(is_skipped)
        beside[max(0, -dy) : rows - max(0, dy), max(0, -dx) : cols - max(0, dx)] = is_skipped[
            max(0, dy) : rows - max(0, -dy), max(0, dx) : cols - max(0, -dx)
        ]
        for row, col in np.argwhere(is_done & beside):
            core = run.plan.at(int(row), int(col)).core
            y, x = (core.y0 + core.y1) // 2, (core.x0 + core.x1) // 2
            found.append((y + dy * core.height // 2, x + dx * core.width // 2))
    return found


def _pixels(
    run: Run, source: ImageSource, mask: Mask, corner: Corner, limits: tuple[float, float]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Picture and labels of one place; None where the image doesn't decode there."""
    level, scale, (height, width) = run.card.image.level, run.plan.grid.scale, run.plan.extent
    box = Box(*corner, min(corner[0] + SIDE_PX, height), min(corner[1] + SIDE_PX, width))
    try:
        pixels = source.read(level, box).astype(np.float32)
    except SourceError:
        return None
    picture = np.ascontiguousarray(to_display(pixels, limits))
    repeats = max(1, round(float(max(scale))))
    picture = picture.repeat(repeats, axis=0).repeat(repeats, axis=1)
    y0, x0, y1, x1 = (int(at * of) for at, of in zip((box.y0, box.x0, box.y1, box.x1), (*scale, *scale), strict=True))
    labels = mask.read(Box(y0, x0, max(y1, y0 + 1), max(x1, x0 + 1)).intersect(run.plan.mask))
    rows = np.arange(picture.shape[0]) * labels.shape[0] // picture.shape[0]
    cols = np.arange(picture.shape[1]) * labels.shape[1] // picture.shape[1]
    return picture, labels[np.ix_(rows, cols)]


def _rgb(color: str) -> NDArray[np.float32]:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
