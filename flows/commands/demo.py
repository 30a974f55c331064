"""A real image that every installation holds."""

from __future__ import annotations

from pathlib import Path

import skimage


def demo_image() -> Path:
    """The retina of a healthy left eye, 1411 x 1411 px, from scikit-image (M. Häggström 2014, CC0)."""
    return Path(skimage.__file__).parent / "data" / "retina.jpg"
