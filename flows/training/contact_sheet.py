"""Validation images with prediction against truth, on one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from flows.reporting.palette import GREEN, SKY, VERMILION
from flows.training.drawing import INK, PAPER, font
from unet_core.files import write_whole

_SIDE_PX, _GAP_PX, _CAPTION_PX, _HEADING_PX = 260, 12, 24, 44
_FOUND, _INVENTED, _MISSED = (ImageColor.getrgb(color)[:3] for color in (GREEN, VERMILION, SKY))
_OPACITY = 0.55


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One validation image: pixels `(H, W, bands)`, true and predicted labels of one shape, and its IoU."""

    name: str
    iou: float
    image_HWN: NDArray[Any]  # noqa: N815
    truth_HW: NDArray[np.uint8]  # noqa: N815
    predicted_HW: NDArray[np.uint8]  # noqa: N815


def chosen(ious: Sequence[float], each: int = 3) -> list[tuple[str, list[int]]]:
    """Images to show: the indices of the worst, the median and the best, none twice, undefined ones left out."""
    order = sorted((index for index, iou in enumerate(ious) if not math.isnan(iou)), key=lambda index: ious[index])
    each = min(each, max(1, len(order) // 3))
    worst, best = order[:each], order[each:][-each:]
    between = order[len(worst) : len(order) - len(best)]
    start = max(0, (len(between) - each) // 2)
    rows = [("worst", worst), ("median", between[start : start + each]), ("best", best)]
    return [(name, indices) for name, indices in rows if indices]


def write_contact_sheet(path: Path, rows: Sequence[tuple[str, Sequence[Compared]]]) -> None:
    """Write the page, a PNG: per image its pixels, and the same with its agreement in colour."""
    columns = max(len(images) for _, images in rows)
    cell = 2 * _SIDE_PX + _GAP_PX
    size = (
        columns * (cell + 2 * _GAP_PX) + 2 * _GAP_PX,
        _HEADING_PX + len(rows) * (_CAPTION_PX + _SIDE_PX + 2 * _GAP_PX),
    )
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    _draw_legend(draw)
    for row, (kind, images) in enumerate(rows):
        top = _HEADING_PX + row * (_CAPTION_PX + _SIDE_PX + 2 * _GAP_PX)
        for column, compared in enumerate(images):
            left = 2 * _GAP_PX + column * (cell + 2 * _GAP_PX)
            caption = f"{kind}: IoU {compared.iou:.3f}  {_shortened(compared.name)}"
            draw.text((left, top), caption, INK, font(14), "lt")
            plain = _as_rgb(compared.image_HWN)
            # A finer output grid than the image's shows the image enlarged.
            plain = np.asarray(Image.fromarray(plain).resize(compared.truth_HW.shape[::-1], Image.Resampling.NEAREST))
            for index, pixels in enumerate((plain, _with_agreement(plain, compared))):
                page.paste(_fitted(pixels), (left + index * (_SIDE_PX + _GAP_PX), top + _CAPTION_PX))
    write_whole(path, lambda file: page.save(file, "PNG"))


def _draw_legend(draw: ImageDraw.ImageDraw) -> None:
    x = 2.0 * _GAP_PX
    for name, color in (("found", _FOUND), ("invented or of another class", _INVENTED), ("missed", _MISSED)):
        draw.rectangle((x, 14, x + 16, 30), color)
        draw.text((x + 24, 22), name, INK, font(15), "lm")
        x += 24 + draw.textlength(name, font(15)) + 30


def _with_agreement(plain_HW3: NDArray[np.uint8], compared: Compared) -> NDArray[np.uint8]:
    truth, predicted = compared.truth_HW, compared.predicted_HW
    grey_HW3 = np.repeat(plain_HW3.mean(axis=2, keepdims=True), 3, axis=2)
    for where, color in (
        ((predicted == truth) & (truth > 0), _FOUND),
        ((predicted > 0) & (predicted != truth), _INVENTED),
        ((predicted == 0) & (truth > 0), _MISSED),
    ):
        grey_HW3[where] = (1 - _OPACITY) * grey_HW3[where] + _OPACITY * np.array(color)
    return grey_HW3.round().astype(np.uint8)


def _as_rgb(image_HWN: NDArray[Any]) -> NDArray[np.uint8]:
    """The first three bands, or the first one as grey, stretched where little or nothing of it would be seen.

    That is where pixels aren't uint8, and where even the brightest are darker than half.
    """
    shown = image_HWN[..., :3] if image_HWN.shape[2] >= 3 else np.repeat(image_HWN[..., :1], 3, axis=2)
    low, high = np.percentile(shown, (1, 99.5))
    if shown.dtype == np.uint8 and high >= 128:
        return shown
    return ((shown.astype(np.float64) - low) / max(high - low, 1e-12) * 255).clip(0, 255).astype(np.uint8)


def _fitted(pixels_HW3: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(pixels_HW3)
    scale = _SIDE_PX / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _shortened(name: str, longest: int = 40) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
