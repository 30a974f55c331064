"""Layers of a scene: which members each band is read from, on which grid, and which of them lies on top."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.facts import Scale, known_scales
from tiling.sources.limits import MAX_BANDS
from tiling.sources.matching import matched
from tiling.sources.scene.grid import Affine, Grid, Placing, common_grid
from tiling.sources.scene.member import Member
from tiling.sources.scene.methods import Method, Methods, method_at
from tiling.sources.scene.naming import BandFiles
from tiling.sources.scene.vrt import Vrt, VrtBand, VrtSource
from tiling.storage.place import Place

Look = Callable[[Place], Member]

_PIXELS: Affine = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Drawing of one band of a file: over what is there, whatever the file says, but for one value."""

    band: int
    skipped: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """A member where it lies; `drawn` where a VRT says how, `methods` of its bands where they are resampled."""

    member: Member
    placing: Placing
    drawn: Drawn | None = None
    methods: tuple[Method, ...] = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """Bands, by number from 0, that the same members hold, the first on top; `nodata` where a VRT gives one."""

    numbers: range
    parts: tuple[Part, ...]
    nodata: float | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """Names of the bands, the grid, and the layers that fill it, with the value that gaps hold if there is one."""

    names: tuple[str, ...]
    grid: Grid
    layers: tuple[Layer, ...]
    dtype: np.dtype[np.generic]
    nodata: float | None
    scales: tuple[Scale, ...]

    @property
    def members(self) -> list[Member]:
        """Every file, once."""
        return list({part.member.path: part.member for layer in self.layers for part in layer.parts}.values())

    @property
    def resampled(self) -> tuple[tuple[str, str], ...]:
        """Bands that are resampled, by name, and how; of files that differ in it, every way."""
        found: dict[str, dict[str, None]] = {}
        for layer in self.layers:
            for part in layer.parts:
                for number, method in zip(layer.numbers, part.methods, strict=False):
                    found.setdefault(self.names[number], {})[method] = None
        return tuple((name, " and ".join(ways)) for name, ways in found.items())

    @property
    def may_lack_data(self) -> bool:
        """True if a file says which of its pixels hold none, or leaves a part of the grid bare."""
        whole = Box(0, 0, *self.grid.shape)
        bare = any(
            not any(part.placing.shift is not None and part.placing.box.contains(whole) for part in layer.parts)
            for layer in self.layers
        )
        return bare or any(_says_no_data(layer, part) for layer in self.layers for part in layer.parts)


def scene_of_files(
    bands: tuple[BandFiles, ...], look: Look, crs: str | None = None, asked: Methods | None = None
) -> Scene:
    """A scene of files that lie where they say, in a CRS and resampled as asked for.

    Raises:
        SourceError: they don't fit each other, or what is asked for.
    """
    asked = asked or Methods()
    groups = [[_described(look(file), band) for file in band.files] for band in bands]
    members = [member for group in groups for member in group]
    names = _names(bands, groups)
    asked.expect_bands(names)
    grid, placings = common_grid([member.facts for member in members], [member.path.name for member in members], crs)
    layers: list[Layer] = []
    rest, first = iter(placings), 0
    for band, group in zip(bands, groups, strict=True):
        count = len(group[0].facts.bands)
        # Colours of a palette stand for numbers, and one between two for none.
        holds_classes = band.holds_classes or any(member.facts.photometric == "palette" for member in group)
        ways: list[Method | None] = [
            asked.of(name, holds_classes=holds_classes) for name in names[first : first + count]
        ]
        parts = tuple(_part(member, next(rest), ways) for member in group)
        layers.append(Layer(range(first, first + count), parts))
        first += count
    _expect_overlap(names, layers)
    dtype = _common_dtype(members)
    nodata = _common_nodata([member.facts.nodata for member in members], dtype)
    scales = known_scales([scale for group in groups for scale in _common_scales(group)])
    return Scene(names, grid, tuple(layers), dtype, nodata, scales)


def _described(member: Member, band: BandFiles) -> Member:
    """A file with what is said of it elsewhere, which has to be true of it."""
    level = member.facts.levels[0]
    if band.shape is not None and (level.height, level.width) != band.shape:
        raise SourceError(
            f"{member.path.name} is {level.height} x {level.width} px, and the scene's metadata says "
            f"{band.shape[0]} x {band.shape[1]}, so that it lies elsewhere; unpack the scene's archive again"
        )
    return member.overridden(band.georeference, band.nodata, band.scales)


def _part(member: Member, placing: Placing, asked: Sequence[Method | None]) -> Part:
    """A member where it lies, and how its bands are resampled where its pixels aren't the grid's."""
    if placing.shift is not None:
        return Part(member, placing)
    return Part(member, placing, None, tuple(method_at(each, placing.pixel, member.path.name) for each in asked))


def scene_of_vrt(vrt: Vrt, look: Look) -> Scene:
    """A scene whose files lie where a VRT says, drawn as GDAL draws them.

    Raises:
        SourceError: a file isn't what the VRT says of it.
    """
    members = {file: look(file) for file in vrt.files}
    layers = tuple(
        Layer(
            range(number, number + 1),
            tuple(_drawn(source, members[source.file], band) for source in band.sources),
            band.nodata,
        )
        for number, band in enumerate(vrt.bands)
    )
    kinds = {band.dtype for band in vrt.bands}
    if len(kinds) > 1:
        raise SourceError(f"its bands hold {' and '.join(sorted(map(str, kinds)))}; convert them to one type")
    dtype = kinds.pop()
    nodata = _common_nodata([band.nodata for band in vrt.bands], dtype)
    scales = known_scales([band.scale for band in vrt.bands])
    return Scene(_vrt_names(vrt, members), _vrt_grid(vrt), layers, dtype, nodata, scales)


def _drawn(source: VrtSource, member: Member, band: VrtBand) -> Part:
    facts = member.facts
    height, width = facts.levels[0].height, facts.levels[0].width
    if source.band >= len(facts.bands):
        raise SourceError(
            f"{member.path.name} has {len(facts.bands)} bands, not band {source.band + 1}; write it again"
        )
    if facts.dtype != band.dtype:
        raise SourceError(f"{member.path.name} holds {facts.dtype} and the VRT says {band.dtype}; write it again")
    if source.whole not in {None, (height, width)}:
        said = " x ".join(map(str, source.whole or ()))
        raise SourceError(
            f"{member.path.name} is {height} x {width} px, and the VRT says {said}, so that it lies elsewhere by now; "
            "write the VRT again"
        )
    if not Box(0, 0, height, width).translate(*source.shift).contains(source.box):
        raise SourceError(f"{member.path.name} is {height} x {width} px, the VRT takes it for larger; write it again")
    placing = Placing((height, width), source.box, source.shift, _PIXELS, None)
    return Part(member, placing, Drawn(source.band, source.skipped))


def _vrt_names(vrt: Vrt, members: dict[Path, Member]) -> tuple[str, ...]:
    """Descriptions where the VRT has them; else the first file's own names where all bands are its, else numbers."""
    if all(band.name for band in vrt.bands):
        return tuple(band.name or "" for band in vrt.bands)
    first = members[vrt.bands[0].sources[0].file]
    order = [band.sources[0].band for band in vrt.bands]
    if all(band.sources[0].file == first.path for band in vrt.bands) and order == list(range(len(first.facts.bands))):
        return first.facts.bands
    return tuple(str(number) for number in range(1, len(vrt.bands) + 1)) if len(vrt.bands) > 1 else ("gray",)


def _vrt_grid(vrt: Vrt) -> Grid:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if vrt.affine is None:
        return Grid(vrt.shape, _PIXELS, None, None)
    if vrt.srs is None:
        return Grid(vrt.shape, vrt.affine, None, None, is_placed=True)
    try:
        crs = CRS.from_user_input(vrt.srs)
        code = crs.to_epsg()
        name = None if code is None else f"EPSG:{code}"
        return Grid(vrt.shape, vrt.affine, crs.to_wkt(version="WKT2_2019"), name)
    except CRSError as error:
        raise SourceError(f"its SRS is none that is known ({error}); correct it") from error


def _names(bands: tuple[BandFiles, ...], groups: list[list[Member]]) -> tuple[str, ...]:
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


def _expect_overlap(names: tuple[str, ...], layers: list[Layer]) -> None:
    first = [part.placing.box for part in layers[0].parts]
    for name, layer in zip(names[1:], layers[1:], strict=False):
        if all(part.placing.box.intersect(box).is_empty for part in layer.parts for box in first):
            raise SourceError(f"the band {name!r} lies nowhere on the band {names[0]!r}: give files of one place")


def _common_nodata(values: list[float | None], dtype: np.dtype[np.generic]) -> float | None:
    """The value that all have, where the type holds it."""
    first = values[0]
    if first is None or (dtype.kind != "f" and matched(first, dtype) is None):
        return None
    is_one = all(value is not None and np.array_equal(value, first, equal_nan=True) for value in values)
    return first if is_one else None


def _common_scales(members: list[Member]) -> tuple[Scale, ...]:
    """Scale and offset of each band that files hold together."""
    first = members[0]
    for member in members:
        if member.facts.scales != first.facts.scales:
            raise SourceError(
                f"{first.path.name} and {member.path.name} hold the same bands with different scales or offsets "
                f"({_told(first)}; {_told(member)}), so that one stored value stands for two: convert them to one "
                "(gdal_translate -unscale)"
            )
    return first.facts.scales or ((1.0, 0.0),) * len(first.facts.bands)


def _told(member: Member) -> str:
    return ", ".join(f"x {scale:g} {offset:+g}" for scale, offset in member.facts.scales[:3]) or "none"


def _common_dtype(members: list[Member]) -> np.dtype[np.generic]:
    """The smallest type that holds the values of every file."""
    kinds = {member.facts.dtype for member in members}
    dtype = np.result_type(*kinds)
    for kind in kinds:
        if not np.can_cast(kind, dtype, "safe") or (kind.itemsize == 8 and kind != dtype):
            listed = " and ".join(sorted(map(str, kinds)))
            raise SourceError(f"no type holds the values of files of {listed}; convert them to one")
    return dtype


def _says_no_data(layer: Layer, part: Part) -> bool:
    """True if a file, or the VRT that draws it, says which pixels hold none; what is no number says so by itself."""
    facts = part.member.facts
    if part.drawn is not None:
        facts = replace(facts, nodata=layer.nodata, has_mask=False)
    return facts.has_mask or matched(facts.nodata, facts.dtype) is not None
