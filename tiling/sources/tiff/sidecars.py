"""Small files beside a TIFF that GDAL reads with it: its world file, `.aux.xml`, `.msk` and `.ovr`."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiling.errors import AccessError, SourceError

if TYPE_CHECKING:
    from tiling.storage.place import Place

MAX_WORLD_BYTES = 64 * 1024
MAX_AUX_BYTES = 8 * 1024**2

_AUX, _MASK, _OVERVIEWS = ".aux.xml", ".msk", ".ovr"
_NODATA = b"<NoDataValue"


@dataclass(frozen=True, slots=True)
class Sidecars:
    """Sidecar files of an image.

    Attributes:
        world: the world file's text: six numbers, of the first pixel's centre.
        aux: GDAL's own notes on the image, as XML.
        mask: a TIFF that says which pixels hold data.
        overviews: a TIFF of the pyramid's coarser levels.
    """

    world: bytes | None = None
    aux: bytes | None = None
    mask: Place | None = None
    overviews: Place | None = None

    @classmethod
    def of(cls, place: Place) -> Sidecars:
        """Look for them by the names that GDAL knows; a file that can't be read is none.

        Raises:
            SourceError: one of them is larger than such a file can be.
        """
        names = world_names(place.name)
        # On a disk a look costs nothing; a store is asked for lower case alone, by which writers name them.
        worlds = [place.parent / name for name in (names if isinstance(place, Path) else names[::2])]
        aux, mask, overviews = (place.parent / (place.name + suffix) for suffix in (_AUX, _MASK, _OVERVIEWS))
        there = _those_there([*worlds, aux, mask, overviews])
        world = next((each for each in worlds if each in there), None)
        return cls(
            None if world is None else _read(world, MAX_WORLD_BYTES),
            _read(aux, MAX_AUX_BYTES) if aux in there else None,
            mask if mask in there else None,
            overviews if overviews in there else None,
        )

    @property
    def says_place(self) -> bool:
        """True if one of them may say where the image lies, or which value is no data."""
        return self.world is not None or self.aux is not None


NO_SIDECARS = Sidecars()


def world_names(name: str) -> list[str]:
    """The names of an image's world file, as GDAL tries them: of `map.tiff` map.tfw, map.tiffw and map.wld."""
    stem, dot, suffix = name.rpartition(".")
    if not dot or not suffix:
        return []
    kinds = [f"{suffix[0]}{suffix[-1]}w", f"{suffix}w", "wld"]
    return [f"{stem}.{each}" for kind in kinds for each in (kind.lower(), kind.upper())]


def pixel_sidecars(place: Place) -> list[Place]:
    """Of the files beside a TIFF those that its pixels depend on: mask, levels, and a value for no data."""
    aux, mask, overviews = (place.parent / (place.name + suffix) for suffix in (_AUX, _MASK, _OVERVIEWS))
    there = _those_there([aux, mask, overviews])
    notes_nodata = aux in there and _NODATA in _read(aux, MAX_AUX_BYTES)
    return [each for each in (mask, overviews) if each in there] + ([aux] if notes_nodata else [])


def _those_there(places: list[Place]) -> set[Place]:
    if all(isinstance(place, Path) for place in places):
        return {place for place in places if _is_file(place)}
    # A store answers each question with a round trip: they are asked side by side.
    with ThreadPoolExecutor(len(places)) as threads:
        return set(_kept(places, threads.map(_is_object, places)))


def _kept(places: list[Place], there: Iterator[bool]) -> Iterator[Place]:
    return (place for place, is_there in zip(places, there, strict=True) if is_there)


def _is_file(place: Place) -> bool:
    """Of a name that is too long for any file, which the longest image's is with a suffix, too."""
    try:
        return place.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def _is_object(place: Place) -> bool:
    try:
        return place.is_file()
    except AccessError:  # a store may hide what isn't there behind a refusal
        return False


def _read(place: Place, most_bytes: int) -> bytes:
    size_bytes = place.stat().st_size if isinstance(place, Path) else place.facts().size_bytes
    if size_bytes > most_bytes:
        raise SourceError(f"{place.name} beside it holds {size_bytes} bytes, over {most_bytes}: it is none of its kind")
    return place.read_bytes()
