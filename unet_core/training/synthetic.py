"""Generated images whose every label is known: shapes of which only ellipses count, and tissue with its nuclei.

Each image follows from its size and the generator handed in alone. numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Optical densities in red, green, blue: Ruifrok and Johnston 2001.
_HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
_EOSIN = np.array([0.07, 0.99, 0.11])
_OBJECTS = ("ellipse", "rectangle", "triangle", "line")


@dataclass(frozen=True, slots=True, eq=False)
class _Canvas:
    """The pixel centres of an image, as coordinates of one row and one column."""

    y_H1: NDArray[np.floating]  # noqa: N815
    x_1W: NDArray[np.floating]  # noqa: N815

    @classmethod
    def of(cls, height: int, width: int) -> _Canvas:
        if height < 1 or width < 1:
            raise ValueError(f"an image of {height} x {width} px has no pixels; give 1 or more")
        return cls(np.arange(0.5, height)[:, None], np.arange(0.5, width)[None, :])

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.y_H1), self.x_1W.shape[1]

    def around(self, y: float, x: float, reach: float) -> tuple[slice, slice]:
        """The rows and columns within `reach` of a point."""
        limits = [(max(0, math.floor(c - reach)), max(0, math.ceil(c + reach))) for c in (y, x)]
        return slice(*limits[0]), slice(*limits[1])

    def turned(self, y: float, x: float, angle: float, part: tuple[slice, slice]) -> tuple[Floats, Floats]:
        """Coordinates across and along a direction, from a point, for a part of the image."""
        dy_H1, dx_1W = self.y_H1[part[0]] - y, self.x_1W[:, part[1]] - x
        cos, sin = math.cos(angle), math.sin(angle)
        return cos * dy_H1 - sin * dx_1W, sin * dy_H1 + cos * dx_1W


def ellipses(height: int, width: int, random: Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A grey image `(height, width)` of ellipses, rectangles, triangles and lines, and labels: 1 is ellipse.

    All are brighter than the ground and share sizes, greys and noise, so that only the shape tells them apart.
    Later shapes cover earlier ones, ellipses too. There is about one shape per 40² pixels, at least four.
    """
    canvas = _Canvas.of(height, width)
    ground = random.uniform(30, 120)
    image_HW = ground + 12 * _field(height, width, 48, random)
    labels_HW = np.zeros((height, width), np.uint8)
    for _ in range(max(4, round(height * width / 40**2 * random.uniform(0.7, 1.3)))):
        kind = _OBJECTS[int(random.integers(len(_OBJECTS)))]
        y, x, angle = random.uniform(0, height), random.uniform(0, width), random.uniform(0, math.pi)
        across, along = random.uniform(6, 14), random.uniform(6, 14)
        part = canvas.around(y, x, 30)
        inside = _shape(kind, *canvas.turned(y, x, angle, part), across, along)
        image_HW[part] = np.where(inside, random.uniform(ground + 50, 240), image_HW[part])
        labels_HW[part] = np.where(inside, np.uint8(kind == "ellipse"), labels_HW[part])
    image_HW += random.normal(0, random.uniform(2, 10), image_HW.shape)
    return _bytes(image_HW), labels_HW


def _shape(kind: str, v: Floats, u: Floats, across: float, along: float) -> Mask:
    """Pixels of one shape around the origin, from coordinates across and along it."""
    if kind == "ellipse":
        return (v / across) ** 2 + (u / along) ** 2 < 1
    if kind == "rectangle":
        return (np.abs(v) < 0.85 * across) & (np.abs(u) < 0.85 * along)
    if kind == "triangle":
        return (v > -across) & (np.abs(u) / along < (across - v) / (2 * across))
    return (np.abs(v) < 1 + across / 12) & (np.abs(u) < 2 * along)


def tissue(height: int, width: int, random: Generator) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """An RGB image `(height, width, 3)` like tissue in haematoxylin and eosin, and its nuclei numbered from 1.

    Fibres and cytoplasm in eosin around empty gaps, nuclei in haematoxylin with chromatin and a darker rim, at
    about 0.5 µm per pixel. Nuclei may touch; none covers another. Stains add up as optical densities.
    """
    canvas = _Canvas.of(height, width)
    solid_HW = _sigmoid(6 * (_field(height, width, 90, random) + random.uniform(0.2, 1.2)))
    fibres_HW = _fibres(canvas, random)
    eosin_HW = solid_HW * random.uniform(0.25, 0.5) * (0.5 + 0.5 * fibres_HW + 0.25 * _field(height, width, 5, random))
    haematoxylin_HW = solid_HW * random.uniform(0.03, 0.12) * (1 + 0.3 * _field(height, width, 9, random))
    instances_HW = np.zeros((height, width), np.int32)
    crowded_HW = _sigmoid(3 * _field(height, width, 60, random))
    chromatin_HW = _field(height, width, 3, random)
    strength = random.uniform(0.55, 1.1)
    for number in range(1, 1 + max(4, round(height * width / 22**2))):
        y, x = random.uniform(0, height), random.uniform(0, width)
        place = int(y), int(x)
        if random.random() > solid_HW[place] * (0.25 + 0.75 * crowded_HW[place]):
            continue
        _add_nucleus(canvas, (y, x), number, strength, random, chromatin_HW, instances_HW, haematoxylin_HW)
    density_HWN = haematoxylin_HW[..., None] * _HAEMATOXYLIN + eosin_HW.clip(0)[..., None] * _EOSIN
    grain_HWN = random.normal(0, 2.5, density_HWN.shape)
    return _bytes(random.uniform(235, 250) * np.exp(-density_HWN.clip(0)) + grain_HWN), _numbered(instances_HW)


def _add_nucleus(
    canvas: _Canvas,
    centre: tuple[float, float],
    number: int,
    strength: float,
    random: Generator,
    chromatin_HW: Floats,
    instances_HW: NDArray[np.int32],
    haematoxylin_HW: Floats,
) -> None:
    """Draw one nucleus into labels and stain, unless much of it would lie under another."""
    across = random.uniform(4.5, 9)
    along = across * random.uniform(1, 1.9)
    part = canvas.around(*centre, 1.3 * along + 2)
    v, u = canvas.turned(*centre, random.uniform(0, math.pi), part)
    turn = np.arctan2(v / across, u / along)
    outline = 1 + sum(random.normal(0, 0.05) * np.cos(n * turn + random.uniform(0, 2 * math.pi)) for n in (2, 3, 4))
    radius = np.hypot(v / across, u / along) / outline
    inside, free = radius < 1, instances_HW[part] == 0
    if (inside & free).sum() < 0.8 * inside.sum():
        return
    instances_HW[part][inside & free] = number
    rim = 1 + 0.5 * np.exp(-(((radius - 0.92) / 0.1) ** 2))
    stain = strength * random.uniform(0.7, 1.3) * rim * (1 + 0.3 * chromatin_HW[part].clip(-1.5, 2))
    # The edge of a nucleus falls over about one pixel, as optics draw it.
    soft = _sigmoid((1 - radius) * across * 2.5) * free
    haematoxylin_HW[part] = haematoxylin_HW[part] * (1 - soft) + stain * soft


def _numbered(instances_HW: NDArray[np.int32]) -> NDArray[np.int32]:
    """The same instances numbered 1, 2, 3… without gaps."""
    numbers, places = np.unique(instances_HW, return_inverse=True)
    first = 0 if numbers[0] == 0 else 1
    return (places.reshape(instances_HW.shape) + first).astype(np.int32)


def _fibres(canvas: _Canvas, random: Generator) -> Floats:
    """Wavy bundles between -1 and 1, along a direction of the image's own."""
    height, width = canvas.shape
    everything = slice(0, height), slice(0, width)
    v, _ = canvas.turned(height / 2, width / 2, random.uniform(0, math.pi), everything)
    bent = v + 14 * _field(height, width, 70, random) + 3 * _field(height, width, 18, random)
    return np.sin(bent * 2 * math.pi / random.uniform(7, 16)) * _sigmoid(2 * _field(height, width, 40, random))


def _field(height: int, width: int, grain_px: int, random: Generator) -> Floats:
    """A smooth random field `(height, width)` of about unit deviation whose features are `grain_px` wide."""
    nodes = random.standard_normal((height // grain_px + 3, width // grain_px + 3))
    rows, columns = (_interpolation(length, grain_px, random) for length in (height, width))
    return 1.5 * rows @ nodes @ columns.T


def _interpolation(length: int, grain_px: int, random: Generator) -> Floats:
    """The weights `(length, nodes)` of nodes `grain_px` apart, smooth in between, from a random start."""
    position = np.arange(length) / grain_px + random.uniform(0, 1)
    before = position.astype(np.intp)
    share = position - before
    share = share * share * (3 - 2 * share)
    weights = np.zeros((length, length // grain_px + 3))
    weights[np.arange(length), before] = 1 - share
    weights[np.arange(length), before + 1] = share
    return weights


def _sigmoid(values: Floats) -> Floats:
    return 1 / (1 + np.exp(-values))


def _bytes(values: Floats) -> NDArray[np.uint8]:
    return values.round().clip(0, 255).astype(np.uint8)
