"""A real image that every installation holds."""

from __future__ import annotations

from pathlib import Path

import skimage


def demo_image() -> Path:
    """Immunohistochemistry of human colon with hematoxylin counterstain, 512 x 512 px, from scikit-image."""
    return Path(skimage.__file__).parent / "data" / "ihc.png"
