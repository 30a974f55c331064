"""Scene as one image: many files on one grid, with named bands, read by level and box as one file is."""

from __future__ import annotations

import hashlib
from itertools import chain, count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.sources.facts import ImageFacts, make_levels
from tiling.sources.limits import source_errors
from tiling.sources.present import present
from tiling.sources.scene.content import FORMAT, is_vrt
from tiling.sources.scene.layers import Layer, Part, Scene, scene_of_files, scene_of_vrt
from tiling.sources.scene.member import Opener, OpenMembers, Seen, open_bytes
from tiling.sources.scene.methods import AUTO, Methods
from tiling.sources.scene.naming import is_list, scene_files
from tiling.sources.scene.resampled import resampled_bands, working_bytes
from tiling.sources.scene.vrt import read_vrt
from tiling.sources.tiff.georeference import ground_pixel_size
from tiling.storage.place import Place

Pixels = npt.NDArray[np.generic]
Flags = npt.NDArray[np.bool_]

_CHUNK_PX = 1024


class SceneReader:
    """An open scene. Safe to call from several threads at once.

    Args:
        path: what names it (`tiling.sources.scene.naming`), or a VRT.
        opener: opens one of its files.
        crs: the grid's, where that of the finest file isn't meant.
        resampling: methods as typed (`tiling.sources.scene.methods`).

    Raises:
        SourceError: a file is missing, can't be read, or doesn't fit the others.
        OSError: a folder or a VRT can't be read.
        StorageError: a server of files on the web fails.
    """

    def __init__(self, path: Place, opener: Opener, crs: str | None = None, resampling: str = AUTO) -> None:
        self._files = OpenMembers(opener)
        vrt = read_vrt(path) if isinstance(path, Path) and not is_list(path) and is_vrt(path) else None
        bands = () if vrt is not None else scene_files(path)
        with source_errors(str(path)):
            look, methods = self._files.look, Methods.parse(resampling)
            if vrt is not None and (crs is not None or methods != Methods()):
                raise SourceError(
                    "a VRT has one grid, whose pixels are taken as they are; leave out --crs and --resampling, or give "
                    "its files as a list or glob"
                )
            self._scene = scene_of_vrt(vrt, look) if vrt is not None else scene_of_files(bands, look, crs, methods)
            self._facts = _facts(self._scene)
        self.identity = _identity(self._scene)

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    def read(self, level: int, box: Box) -> Pixels:
        """Pixels `(y, x, band)` of a box inside the scene; where no file lies, the no-data value or 0."""
        return self.read_held(level, box)[0]

    def read_mask(self, level: int, box: Box) -> Flags | None:
        """Mask of the pixels of a box that hold data in any band; None where all of them surely do."""
        held = self.read_held(level, box)[1] if self._facts.has_mask else None
        return None if held is None else np.asarray(held.any(axis=-1))

    def read_held(self, level: int, box: Box, bands: tuple[int, ...] | None = None) -> tuple[Pixels, Flags | None]:
        """Pixels of some bands of a box, and which of their values `(y, x, band)` are data; None where all are.

        Files of other bands are not read. An unsigned no-data value in one band counts as a value where another of
        these bands holds data, as in one file of all bands (`tiling.sources.present`).
        """
        facts = self._facts
        layers = [
            layer for layer in self._scene.layers if bands is None or any(band in layer.numbers for band in bands)
        ]
        shape = (*box.shape, sum(len(layer.numbers) for layer in layers))
        pixels = np.full(shape, 0 if facts.nodata is None else facts.nodata, facts.dtype)
        inside, held = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        order: list[int] = []
        for layer in layers:
            at = slice(len(order), len(order) + len(layer.numbers))
            order += layer.numbers
            own = pixels[..., at], inside[..., at], held[..., at]
            self._read_layer(layer, box, *own)
            if layer.parts[0].drawn is not None:
                shown = present(own[0], layer.nodata)
                own[2][:] &= True if shown is None else shown
        if bands is not None:
            at = [order.index(band) for band in bands]
            pixels, inside, held = np.ascontiguousarray(pixels[..., at]), inside[..., at], held[..., at]
        if facts.dtype.kind == "u":
            held = inside & _in_any(held)[..., np.newaxis]
        return pixels, None if held.all() else held

    def chunk_px(self, level: int) -> tuple[int, int]:
        whole = self._facts.levels[level]
        return min(_CHUNK_PX, whole.height), min(_CHUNK_PX, whole.width)

    def files(self) -> dict[str, Box]:
        """Boxes on the grid that the files fill, by their names, which are numbered where they are the same."""
        found: dict[str, Box] = {}
        for layer in self._scene.layers:
            for part in layer.parts:
                box, stem = part.placing.box.intersect(self._facts.levels[0].box), Path(part.member.path.name).stem
                if box in found.values():
                    continue
                names = chain([stem], (f"{stem}-{number}" for number in count(2)))
                found[next(name for name in names if name not in found)] = box
        return found

    def close(self) -> None:
        self._files.close()

    def _read_layer(self, layer: Layer, box: Box, pixels: Pixels, inside: Flags, held: Flags) -> None:
        """Lay members under each other: a pixel is the topmost member's that holds data there in any band.

        Where none holds data it is the topmost member's that has the pixel at all.
        """
        left = np.ones(box.shape, np.bool_)
        for part in layer.parts:
            place = box.intersect(part.placing.box)
            if place.is_empty:
                continue
            here = place.translate(-box.y0, -box.x0).slices
            seen = self._seen(part, place)
            has_pixels, has_data = _in_any(seen.inside), _in_any(seen.held)
            taken = (left[here] & (has_data | (has_pixels & ~_in_any(inside[here]))))[..., np.newaxis]
            for target, values in ((pixels, seen.pixels), (inside, seen.inside), (held, seen.held)):
                np.copyto(target[here], values, casting="unsafe", where=taken)
            left[here] &= ~has_data
            if not left.any():
                return

    def _seen(self, part: Part, box: Box) -> Seen:
        """A box of the grid as a member shows it."""
        member, placing = part.member, part.placing
        if placing.shift is None:
            return resampled_bands(
                self._scene.grid,
                placing,
                box,
                lambda own: self._files.read(member, own),
                member.facts.dtype,
                part.methods,
            )
        seen = self._files.read(member, box.translate(-placing.shift[0], -placing.shift[1]))
        if part.drawn is None:
            return seen
        drawn = seen.pixels[..., part.drawn.band : part.drawn.band + 1]
        whole = np.ones((*box.shape, 1), np.bool_)
        shown = None if part.drawn.skipped is None else present(drawn, part.drawn.skipped)
        return Seen(drawn, whole, whole if shown is None else shown)


def _in_any(flags: Flags) -> Flags:
    """True if any band `(y, x, band)` has it."""
    return flags[..., 0] if flags.shape[-1] == 1 else np.asarray(flags.any(axis=-1))


def _identity(scene: Scene) -> str:
    members = "\n".join(f"{member.path} {member.identity}" for member in scene.members)
    return hashlib.sha256(f"{scene.layers}\n{members}".encode(errors="surrogateescape")).hexdigest()


def _facts(scene: Scene) -> ImageFacts:
    members, georeference = scene.members, scene.grid.georeference
    size = members[0].facts.levels[0].pixel_size if georeference is None else ground_pixel_size(georeference)
    photometric = {member.facts.photometric for member in members}
    alpha = {member.facts.alpha for member in members}
    offers_alpha = len(alpha) == 1 and len(scene.layers) == 1 and scene.layers[0].parts[0].drawn is None
    return ImageFacts(
        FORMAT,
        scene.names,
        scene.dtype,
        make_levels([scene.grid.shape], size),
        photometric.pop() if len(photometric) == 1 else "min-is-black",
        nodata=scene.nodata,
        georeference=georeference,
        has_alpha=all(member.facts.has_alpha for member in members),
        alpha=alpha.pop() if offers_alpha else (),
        memory_bytes=open_bytes(members) + _working_bytes(scene),
        has_mask=scene.may_lack_data,
        scales=scene.scales,
        resampled=scene.resampled,
    )


def _working_bytes(scene: Scene) -> int:
    return max(
        (working_bytes(len(part.methods)) for layer in scene.layers for part in layer.parts if part.methods), default=0
    )
