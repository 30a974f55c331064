"""The images of one file, and which of them is read: the one that was asked for, else the largest calibrated one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiling.errors import SourceError
from tiling.geometry import PixelSize

_SHOWN = 12


@dataclass(frozen=True, slots=True)
class FileImage:
    """One of a file's images: what it is called, how large it is, and what a pixel of it measures."""

    name: str
    height: int
    width: int
    pixel_size: PixelSize | None = None

    def __str__(self) -> str:
        size = self.pixel_size
        pixel = f" of {size.x:.4g} {size.unit}" if size else ""
        return f"{self.name!r} {self.width} x {self.height} px{pixel}"


def choose_image(images: Sequence[FileImage], wanted: int | str | None) -> int:
    """The number, from 0, of the image that is read: a name is matched before a number.

    Without a wish it is the largest of those that say what their pixels measure, else the largest; the first of equals.

    Raises:
        SourceError: no such image, or several of that name.
    """
    if wanted is None:
        return max(range(len(images)), key=lambda at: (images[at].pixel_size is not None, _area(images[at]), -at))
    if isinstance(wanted, str):
        text = wanted.strip().casefold()
        named = [at for at, image in enumerate(images) if image.name.casefold() == text]
        if len(named) > 1:
            raise SourceError(f"{len(named)} images are called {wanted!r}; give --series a number: {listed(images)}")
        if named:
            return named[0]
        if text.isdecimal():
            wanted = int(text[:9])
    if isinstance(wanted, int) and wanted < len(images):
        return wanted
    raise SourceError(f"there is no series {wanted!r}; give --series a number from 0 or a name of {listed(images)}")


def listed(images: Sequence[FileImage]) -> str:
    """Numbers, names and sizes, as many as fit a line."""
    shown = ", ".join(f"{at}: {image}" for at, image in enumerate(images[:_SHOWN]))
    return shown if len(images) <= _SHOWN else f"{shown} and {len(images) - _SHOWN} more"


def _area(image: FileImage) -> int:
    return image.height * image.width
