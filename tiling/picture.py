"""Pictures for people, written whole or not at all."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from tiling.storage import Place, write_atomic


def write_png(path: Place, picture: Image.Image) -> None:
    """Write a picture as PNG.

    Raises:
        DiskError: the disk is full or can't be written.
    """
    encoded = BytesIO()
    picture.save(encoded, format="PNG")
    write_atomic(path, encoded.getvalue())
