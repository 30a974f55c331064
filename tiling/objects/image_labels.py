"""Labels of a run's objects inside of the OME-Zarr image that they are of, in that image's own `labels`.

Specification: https://ngff.openmicroscopy.org/0.5/ (labels and image-label metadata).
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tiling.errors import ExportError
from tiling.geometry import PixelSize
from tiling.sources.facts import Moment
from tiling.sources.omezarr.arrays import fetcher, open_store
from tiling.sources.omezarr.labels import LABELS, ome_of
from tiling.sources.omezarr.metadata import Document, Multiscale, find_multiscales
from tiling.sources.omezarr.reader import OmeZarrReader
from tiling.storage.place import Place

if TYPE_CHECKING:
    from tiling.view import View

_METADATA = "zarr.json"
_FORMAT = "0.5"
_RULE = "the labels of objects go into the OME-Zarr image that they are of"


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """Place of an image's labels, and how they lie on it.

    Attributes:
        image: the group of the image, which holds `labels`.
        name: of the group of labels in there.
        levels: how many the image has, and its labels too.
        pixel: the sides of a segmented pixel by the image's own scales.
        units: of its axes y and x; empty where it names none.
    """

    image: Path
    name: str
    levels: int
    pixel: PixelSize
    units: tuple[str, str]

    @property
    def group(self) -> Path:
        """The group of all labels of the image."""
        return self.image / LABELS

    @property
    def path(self) -> Path:
        return self.group / self.name

    @classmethod
    def of(cls, into: Place, image: Place, level: int, view: View | None, model: str) -> ImageLabels:
        """For objects that a model finds on a level of an image.

        Raises:
            ExportError: the place isn't that image, or nothing may be written there.
            SourceError: the image can't be read.
        """
        if not isinstance(into, Path) or not isinstance(image, Path) or not into.is_dir():
            raise ExportError(f"{into} is no folder on a disk: {_RULE}; leave --labels-into out, or copy it there")
        seen = _level_of(image, level, view) if image.is_dir() else None
        if seen is None:
            raise ExportError(f"{image} is no OME-Zarr in a folder: {_RULE}; convert it, or leave --labels-into out")
        found, at, is_deep = seen
        group = image / found.folder
        if into.resolve() != group.resolve():
            raise ExportError(f"{into} isn't the image that is segmented: {_RULE}; give --labels-into {group}")
        if not found.version.startswith(_FORMAT) or not (group / _METADATA).is_file():
            raise ExportError(
                f"{group} is OME-Zarr {found.version}, and labels are written as {_FORMAT}: one image has one format; "
                f"convert it, or leave --labels-into out"
            )
        if is_deep:
            raise ExportError(
                f"{group} has several focal planes or points in time, and the labels are of one, yet would show on "
                f"all; leave --labels-into out"
            )
        step = (1.0, 1.0) if view is None else view.step
        pixel = PixelSize(found.sides[at][0] * step[0], found.sides[at][1] * step[1], "um")
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.") or "overtile"
        made = cls(group, f"{name}-objects", len(found.paths), pixel, _units(group, found))
        made._expect_writable()
        return made

    def facts(self) -> dict[str, Any]:
        """For an event of the ledger."""
        return {**asdict(self), "image": str(self.image.resolve())}

    @classmethod
    def parse(cls, facts: dict[str, Any]) -> ImageLabels:
        """Of an event."""
        size, units = PixelSize(**facts["pixel"]), (facts["units"][0], facts["units"][1])
        return cls(Path(facts["image"]), facts["name"], facts["levels"], size, units)

    def expect_own(self, owner: str | None) -> None:
        """Refuse to write over labels that another has written than who is known by that word.

        Raises:
            ExportError: they are another's.
        """
        if (self.path.exists() or self.path.is_symlink()) and (owner is None or self.owner() != owner):
            raise ExportError(
                f"{self.path} is there, and this run hasn't written it: nothing of another's is overwritten; move it "
                f"away, or leave --labels-into out"
            )

    def owner(self) -> str | None:
        """The word by which the run is known that has written them; None where they aren't overtile's."""
        try:
            found: Any = json.loads((self.path / _METADATA).read_bytes())["attributes"]["overtile"]["owner"]
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            return None
        return found if isinstance(found, str) else None

    def listed(self) -> list[Any]:
        """Names of the image's labels, as its `labels` says."""
        names = ome_of(self._group_document()).get(LABELS)
        return [*cast("list[Any]", names)] if isinstance(names, list) else []

    def group_metadata(self) -> bytes:
        """Contents that `labels` is to have: these, too, and all that it says already."""
        document = self._group_document()
        attributes = document.setdefault("attributes", {})
        attributes["ome"] = {"version": _FORMAT, **ome_of(document), LABELS: [*self.listed(), self.name]}
        return json.dumps(document, indent=2).encode()

    def _group_document(self) -> Document:
        """The metadata of `labels`, as it is or as it would be.

        Raises:
            ExportError: it is no group of OME-Zarr 0.5.
        """
        file = self.group / _METADATA
        try:
            found: Any = json.loads(file.read_bytes())
            names: Any = ome_of(found).get(LABELS, [])
            if not isinstance(names, list):
                raise TypeError(f"its list of labels is a {type(names).__name__}")
        except FileNotFoundError:
            return {"zarr_format": 3, "node_type": "group", "attributes": {}}
        except (OSError, ValueError, RecursionError, TypeError, AttributeError) as error:
            raise ExportError(f"{file} is damaged ({error}): nothing is added to it; repair or remove it") from error
        return found

    def _expect_writable(self) -> None:
        """Refuse an image in which nothing can or may be made."""
        if self.group.is_symlink() or any((self.group / name).exists() for name in (".zgroup", ".zattrs")):
            raise ExportError(
                f"{self.group} is a link, or of another format than the image: nothing is written there; move it away, "
                f"or leave --labels-into out"
            )
        folder = self.group if self.group.is_dir() else self.image
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ExportError(
                f"{folder} can't be written: {_RULE}; give leave to write there, or leave --labels-into out"
            )
        self._group_document()


def _level_of(image: Path, level: int, view: View | None) -> tuple[Multiscale, int, bool] | None:
    """The image of an OME-Zarr, which of its levels is segmented, and whether it has more planes than one."""
    series = None if view is None else view.series
    reader = OmeZarrReader.at(image, Moment(series=series))
    if reader is None:
        return None
    try:
        facts = reader.facts
        path = reader.arrays[level if view is None else view.level]
        found = find_multiscales(fetcher(open_store(image)))[facts.series or 0]
        at = [found.folder + each for each in found.paths].index(path)
        return found, at, facts.focal_planes > 1 or facts.times > 1
    finally:
        reader.close()


def _units(group: Path, found: Multiscale) -> tuple[str, str]:
    """Units of the axes y and x, as the image writes them."""
    scales: Any = ome_of(json.loads((group / _METADATA).read_bytes()))["multiscales"]
    units: dict[str, str] = {}
    for each in scales:
        if [item.get("path") for item in each.get("datasets", [])][: len(found.paths)] == list(found.paths):
            units = {axis["name"]: str(axis.get("unit", "")) for axis in each.get("axes", []) if isinstance(axis, dict)}
    return units.get("y", ""), units.get("x", "")
