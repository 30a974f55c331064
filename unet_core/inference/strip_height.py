"""Height of the strips in which a large region is computed."""

from __future__ import annotations

STRIP_PX = 1 << 20
"""Input pixels of a strip: those of a core of 1024 px."""


def strip_height(strip_px: int, width_px: int, stride: int) -> int:
    """Height of the strips of a region `width_px` wide, in input pixels: a multiple of the stride.

    >>> strip_height(STRIP_PX, 4096, 32)
    256
    """
    return max(1, strip_px // max(1, width_px) // stride) * stride
