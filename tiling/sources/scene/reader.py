"""Scene as one image: many files on one grid, with named bands, read by level and box as one file is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.facts import ImageFacts, make_levels
from tiling.sources.limits import MAX_BANDS, source_errors
from tiling.sources.matching import matched
from tiling.sources.scene.grid import Grid, Placing, common_grid
from tiling.sources.scene.member import MOST_OPEN, Member, Opener, OpenMembers, Seen
from tiling.sources.scene.naming import FORMAT, BandFiles, scene_files
from tiling.sources.scene.resampled import resampled
from tiling.sources.tiff.georeference import ground_pixel_size

Pixels = npt.NDArray[np.generic]
Flags = npt.NDArray[np.bool_]

_CHUNK_PX = 1024


@dataclass(frozen=True, slots=True)
class _Layer:
    """Bands that the same members hold, the first on top."""

    bands: slice
    members: tuple[tuple[Member, Placing], ...]


class SceneReader:
    """An open scene. Safe to call from several threads at once.

    Args:
        path: what names it (`tiling.sources.scene.naming`).
        opener: opens one of its files.

    Raises:
        SourceError: a file is missing, can't be read, or doesn't fit the others.
    """

    def __init__(self, path: Path, opener: Opener) -> None:
        self._files = OpenMembers(opener)
        bands = scene_files(path)
        groups = [tuple(self._files.look(file) for file in band.files) for band in bands]
        members = [member for group in groups for member in group]
        with source_errors(str(path)):
            self._grid, placings = common_grid([member.facts for member in members])
            names = _names(bands, groups)
            self._layers = _layers(groups, placings)
            _expect_overlap(bands, self._layers)
            self._facts = _facts(names, self._grid, members, self._layers)
        told = "\n".join(f"{band.name} {len(band.files)}" for band in bands)
        told += "\n".join(f"{member.path} {member.identity}" for member in members)
        self.identity = hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    def read(self, level: int, box: Box) -> Pixels:
        """Pixels `(y, x, band)` of a box inside the scene; where no file lies, the no-data value or 0."""
        return self.read_held(level, box)[0]

    def read_mask(self, level: int, box: Box) -> Flags | None:
        """Which pixels of a box hold data in any band; None where all of them surely do."""
        held = self.read_held(level, box)[1] if self._facts.has_mask else None
        return None if held is None else np.asarray(held.any(axis=-1))

    def read_held(self, level: int, box: Box) -> tuple[Pixels, Flags | None]:
        """Pixels of a box, and which of their values `(y, x, band)` are data; None where all are.

        An unsigned no-data value in one band counts as a value where another band of the pixel holds data, as in one
        file of all bands (`tiling.sources.present`).
        """
        facts = self._facts
        shape = (*box.shape, len(facts.bands))
        pixels = np.full(shape, 0 if facts.nodata is None else facts.nodata, facts.dtype)
        inside, held = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        for layer in self._layers:
            self._read_layer(layer, box, pixels[..., layer.bands], inside[..., layer.bands], held[..., layer.bands])
        if facts.dtype.kind == "u":
            held = inside & held.any(axis=-1, keepdims=True)
        return pixels, None if held.all() else held

    def chunk_px(self, level: int) -> tuple[int, int]:
        whole = self._facts.levels[level]
        return min(_CHUNK_PX, whole.height), min(_CHUNK_PX, whole.width)

    def close(self) -> None:
        self._files.close()

    def _read_layer(self, layer: _Layer, box: Box, pixels: Pixels, inside: Flags, held: Flags) -> None:
        """Lay members under each other: a pixel is the topmost member's that holds data there in any band."""
        open_px = np.ones(box.shape, np.bool_)
        for member, placing in layer.members:
            place = box.intersect(placing.box)
            if place.is_empty:
                continue
            here = place.translate(-box.y0, -box.x0).slices
            seen = self._seen(member, placing, place)
            has_pixels, has_data = seen.inside.any(axis=-1), seen.held.any(axis=-1)
            for taken, is_data in ((open_px[here] & has_data, True), (open_px[here] & has_pixels & ~has_data, False)):
                unseen = taken if is_data else taken & ~inside[here].any(axis=-1)
                pixels[here][unseen] = seen.pixels[unseen].astype(pixels.dtype)
                inside[here][unseen] = np.broadcast_to(seen.inside, seen.pixels.shape)[unseen]
                held[here][unseen] = np.broadcast_to(seen.held, seen.pixels.shape)[unseen]
            open_px[here] &= ~has_data
            if not open_px.any():
                return

    def _seen(self, member: Member, placing: Placing, box: Box) -> Seen:
        if placing.shift is not None:
            return self._files.read(member, box.translate(-placing.shift[0], -placing.shift[1]))
        count = len(member.facts.bands)
        return resampled(self._grid, placing, box, lambda own: self._files.read(member, own), count, member.facts.dtype)


def _names(bands: tuple[BandFiles, ...], groups: list[tuple[Member, ...]]) -> tuple[str, ...]:
    """Names of the scene's bands: those given, else those of the first file, whose like all others are."""
    first = groups[0][0]
    for band, group in zip(bands, groups, strict=True):
        for member in group:
            count = len(member.facts.bands)
            if band.name is not None and count != 1:
                raise SourceError(
                    f"{member.path.name} has {count} bands ({', '.join(member.facts.bands[:4])}), and stands for the "
                    f"band {band.name!r} alone; give files of one band, or the files without names"
                )
            if band.name is None and count != len(first.facts.bands):
                raise SourceError(
                    f"{member.path.name} has {count} bands and {first.path.name} has {len(first.facts.bands)}: they "
                    "are no mosaic; name files of one band each as NAME=FILE,NAME=FILE"
                )
    names = first.facts.bands if bands[0].name is None else tuple(band.name or "" for band in bands)
    if len(names) > MAX_BANDS:
        raise SourceError(f"{len(names)} bands are more than {MAX_BANDS}; leave some out")
    return names


def _layers(groups: list[tuple[Member, ...]], placings: list[Placing]) -> list[_Layer]:
    layers: list[_Layer] = []
    rest, first = iter(placings), 0
    for group in groups:
        count = len(group[0].facts.bands)
        layers.append(_Layer(slice(first, first + count), tuple((member, next(rest)) for member in group)))
        first += count
    return layers


def _expect_overlap(bands: tuple[BandFiles, ...], layers: list[_Layer]) -> None:
    first = [placing.box for _, placing in layers[0].members]
    for band, layer in zip(bands[1:], layers[1:], strict=True):
        if all(placing.box.intersect(box).is_empty for _, placing in layer.members for box in first):
            raise SourceError(
                f"the band {band.name!r} lies nowhere on the band {bands[0].name!r}: they are no one scene; give files "
                "of one place"
            )


def _facts(names: tuple[str, ...], grid: Grid, members: list[Member], layers: list[_Layer]) -> ImageFacts:
    dtype = _dtype(members)
    values = [member.facts.nodata for member in members]
    nodata = values[0] if values[0] is not None and _fits(values[0], dtype) else None
    if any(value is None or not np.array_equal(value, values[0] or 0, equal_nan=True) for value in values):
        nodata = None
    whole = Box(0, 0, *grid.shape)
    is_covered = all(
        any(placing.shift is not None and placing.box.contains(whole) for _, placing in layer.members)
        for layer in layers
    )
    lacks = any(_says_no_data(member.facts) for member in members)
    alpha = {member.facts.alpha for member in members}
    photometric = {member.facts.photometric for member in members}
    georeference = grid.georeference
    size = members[0].facts.levels[0].pixel_size if georeference is None else ground_pixel_size(georeference)
    return ImageFacts(
        FORMAT,
        names,
        dtype,
        make_levels([grid.shape], size),
        photometric.pop() if len(photometric) == 1 else "min-is-black",
        nodata=nodata,
        georeference=georeference,
        memory_bytes=sum(sorted((member.facts.memory_bytes for member in members), reverse=True)[:MOST_OPEN]),
        has_alpha=all(member.facts.has_alpha for member in members),
        alpha=alpha.pop() if len(alpha) == 1 and len(layers) == 1 else (),
        has_mask=lacks or not is_covered,
    )


def _says_no_data(facts: ImageFacts) -> bool:
    """Whether a file says which pixels hold none; what is no number says so by itself."""
    return facts.has_mask or bool(facts.lacks_by_value) or matched(facts.nodata, facts.dtype) is not None


def _fits(nodata: float, dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind == "f" or matched(nodata, dtype) is not None


def _dtype(members: list[Member]) -> np.dtype[np.generic]:
    """The smallest type that holds the values of every file."""
    kinds = {member.facts.dtype for member in members}
    dtype = np.result_type(*kinds)
    for kind in kinds:
        if not np.can_cast(kind, dtype, "safe") or (kind.itemsize == 8 and kind != dtype):
            told = " and ".join(sorted(map(str, kinds)))
            raise SourceError(f"no type holds the values of files of {told}; convert them to one")
    return dtype
