"""Plain pictures of numbers: one panel of lines with axes, as Pillow draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER = "#222222", "#dddddd", "#ffffff"
# Drawn this many times larger and reduced: Pillow's lines have hard edges.
FINE = 2
_MARGIN_LEFT, _MARGIN_RIGHT, _MARGIN_TOP, _MARGIN_BOTTOM = 80, 20, 44, 34


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a panel; points that aren't finite are left out."""

    name: str
    color: str
    xs: Sequence[float]
    ys: Sequence[float]
    width_px: float = 2.0
    dots: bool = False


def font(height_px: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height_px)


def draw_panel(
    title: str, lines: Sequence[Line], x_end: float, size_px: tuple[int, int], *, log: bool = False, x_name: str = ""
) -> Image.Image:
    """A panel `size_px` (width, height) of lines over 0 to `x_end`; `log`: the y axis is logarithmic
    where the values differ by more than a factor of 3."""
    width, height = (FINE * side for side in size_px)
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    left, right = FINE * _MARGIN_LEFT, width - FINE * _MARGIN_RIGHT
    top, bottom = FINE * _MARGIN_TOP, height - FINE * _MARGIN_BOTTOM
    values = [y for line in lines for y in line.ys if math.isfinite(y) and (y > 0 or not log)]
    log = log and bool(values) and max(values) > 3 * min(values)
    ticks = _log_ticks(values) if log else _ticks(values)

    def place(x: float, y: float) -> tuple[float, float]:
        low, high, at = (math.log10(each) if log else each for each in (ticks[0], ticks[-1], y))
        return left + (right - left) * x / x_end, bottom - (bottom - top) * (at - low) / (high - low)

    small = font(12 * FINE)
    for tick in ticks:
        y = place(0, tick)[1]
        draw.line([(left, y), (right, y)], FAINT, FINE)
        draw.text((left - 8 * FINE, y), f"{tick:.10g}" if tick >= 1e-3 or not tick else f"{tick:.0e}", INK, small, "rm")
    for tick in (each for each in _ticks([0, x_end]) if each <= x_end):
        x = place(tick, ticks[0])[0]
        draw.line([(x, bottom), (x, bottom + 4 * FINE)], INK, FINE)
        draw.text((x, bottom + 7 * FINE), f"{tick:,.10g}", INK, small, "mt")
    draw.text((right, height - 2 * FINE), x_name, INK, small, "rb")
    draw.line([(left, top), (left, bottom), (right, bottom)], INK, FINE)
    for line in lines:
        shown = [(x, y) for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(y) and (y > 0 or not log)]
        _draw_line(draw, line, [place(x, y) for x, y in shown])
    _draw_heading(draw, title, lines, left, right)
    return picture.resize(size_px, Image.Resampling.LANCZOS)


def _draw_line(draw: ImageDraw.ImageDraw, line: Line, points: Sequence[tuple[float, float]]) -> None:
    draw.line(list(points), line.color, round(line.width_px * FINE), "curve")
    if line.dots or len(points) == 1:
        for x, y in points:
            radius = 3 * FINE
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), line.color)


def _draw_heading(draw: ImageDraw.ImageDraw, title: str, lines: Sequence[Line], left: float, right: float) -> None:
    draw.text((left, 12 * FINE), title, INK, font(16 * FINE), "lt")
    x, small = right, font(13 * FINE)
    for line in reversed([line for line in lines if line.name]):
        draw.text((x, 14 * FINE), line.name, INK, small, "rt")
        x -= draw.textlength(line.name, small) + 8 * FINE
        draw.line([(x - 18 * FINE, 21 * FINE), (x, 21 * FINE)], line.color, 3 * FINE)
        x -= 34 * FINE


def _ticks(values: Sequence[float]) -> list[float]:
    """About five round numbers that hold all values between the first and the last."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = low - abs(low or 1) / 2, high + abs(high or 1) / 2
    raw = (high - low) / 4
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    count = math.ceil(high / step - 1e-9) - first
    return [(first + index) * step for index in range(count + 1)]


def _log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 of each power of ten that is needed to hold all values."""
    low, high = (min(values), max(values)) if values else (0.1, 1.0)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    all_ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(index for index, tick in enumerate(all_ticks) if tick <= low)
    last = next(index for index, tick in enumerate(all_ticks) if tick >= high)
    ticks = all_ticks[first : max(last, first + 1) + 1]
    return (
        ticks if len(ticks) <= 8 else [tick for tick in ticks if f"{tick:e}"[0] == "1" or tick in {ticks[0], ticks[-1]}]
    )
