"""Colours of outlines that stand out from what is found in a picture, and from all around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiling.export.close_ups import contrasting


def outline_colors(own: Sequence[str], picture: NDArray[np.uint8], labels: NDArray[np.uint8]) -> list[str]:
    """One colour per label.

    Args:
        own: the model's, of all labels; the background keeps its own.
        picture: `(y, x, 3)`, the whole image at some size. labels: `(y, x)` at the same.
    """
    return [*own[:1], *contrasting(_around(picture, labels, len(own)), len(own) - 1)]


def _around(picture: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """Pixels that outlines lie between: as many of what was found as of all else, of which there is mostly far more."""
    if labels.shape != picture.shape[:2]:
        return picture
    found = (labels > 0) & (labels < classes)
    inside, outside = picture[found], picture[~found]
    most = min(len(inside), len(outside))
    if not most:
        return picture
    return np.concatenate([each[np.linspace(0, len(each) - 1, most).astype(int)] for each in (inside, outside)])
