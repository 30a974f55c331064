"""The card of a run: what was asked, of which image, with which model. Written once, compared at resume."""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from tiling.errors import RunError
from tiling.geometry import Halo, OutputGrid
from tiling.plan import TilePlan
from tiling.runs.no_data import fill_of
from tiling.selection.squares import Squares
from tiling.sources.matching import matched
from tiling.storage.place import Place, read_at
from tiling.view import View

if TYPE_CHECKING:
    from tiling.source import ImageSource

FORMAT_VERSION = 1

Ratio = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}(/[1-9][0-9]{0,8})?$")]


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NoDataCard(_Card):
    """Rule that finds pixels without data, and the value of each band that the network sees in their place."""

    told_by: tuple[str, ...]
    fill: tuple[FiniteFloat, ...]

    @classmethod
    def of(cls, seen: ImageSource, whole: ImageSource, means: tuple[float, ...]) -> NoDataCard | None:
        """Of an image, and of what is segmented of it, for a model of those means; None where all of it holds data."""
        if not seen.may_lack_data:
            return None
        kinds = (
            (f"the value {whole.nodata}", matched(whole.nodata, whole.dtype) is not None or _is_nan(whole.nodata)),
            ("the image's mask or alpha", whole.has_mask),
            (NUMBERS, whole.dtype.kind == "f"),
            ("segments that don't decode", seen.view is not None and bool(seen.view.damaged)),
        )
        return cls(told_by=tuple(name for name, is_told in kinds if is_told), fill=fill_of(means, str(seen.dtype)))

    def __str__(self) -> str:
        return f"{' and '.join(self.told_by)}, seen as {', '.join(f'{value:g}' for value in self.fill)}"


NUMBERS = "values that are no numbers"
"""What tells pixels without data in any image of floats."""


class ImageCard(_Card):
    """The image, and the level that is segmented: one of the file's, or level 0 of the view where there is one."""

    path: str
    fingerprint: str
    format: str
    level: int
    extent: tuple[int, int]
    bands: tuple[str, ...]
    dtype: str
    pixel_size: tuple[float, float, str] | None  # y, x, unit
    view: View | None = None
    asked: dict[str, str] = Field(default_factory=dict)  # which pixels, as typed; the level apart
    no_data: NoDataCard | None = None  # of images of which some pixel may hold no data
    origin_px: tuple[float, float] | None = None  # of its first pixel's centre in the file's own coordinates; y, x
    version: str | None = None  # of its files when the fingerprint was taken (`tiling.sources.version`)


class ClassCard(_Card):
    """A label's name and colour."""

    name: str
    color: str


class ModelRef(_Card):
    """The model: `digest` covers its weights and all of its card that changes labels."""

    reference: str
    name: str
    digest: str
    classes: tuple[ClassCard, ...]


class GeometryCard(_Card):
    """Boxes of the plan, in level pixels, and how the mask's pixels lie on them (`tiling.geometry.OutputGrid`)."""

    core_px: int
    stride: tuple[int, int]
    halo: tuple[int, int, int, int]  # top, bottom, left, right
    read: tuple[int, int]
    grid: tuple[int, int]
    scale: tuple[Ratio, Ratio] = ("1", "1")  # mask pixels per level pixel, as 3 or 1/4
    offset: tuple[int, int] = (0, 0)
    context: tuple[int, int, int, int] = (0, 0, 0, 0)  # mirrored outside: top, bottom, left, right

    @classmethod
    def of(cls, plan: TilePlan) -> GeometryCard:
        return cls(
            core_px=plan.core_px,
            stride=plan.stride,
            halo=plan.halo.sides,
            read=plan.read_shape,
            grid=plan.shape,
            scale=(str(plan.grid.scale[0]), str(plan.grid.scale[1])),
            offset=plan.grid.offset,
            context=plan.grid.context.sides,
        )

    def plan(self, extent: tuple[int, int]) -> TilePlan:
        """The plan of a level of that height and width."""
        scale = Fraction(self.scale[0]), Fraction(self.scale[1])
        grid = OutputGrid(scale, self.offset, Halo(*self.context))
        return TilePlan(extent, self.core_px, self.stride, Halo(*self.halo), grid)


class SquaresCard(_Card):
    """Squares of the level outside of which there is nothing but background (`tiling.selection.squares`)."""

    side_px: int
    shape: tuple[int, int]
    kept: str  # bits, row by row, in hexadecimal

    @classmethod
    def of(cls, squares: Squares) -> SquaresCard:
        rows, cols = squares.kept.shape
        return cls(side_px=squares.side_px, shape=(rows, cols), kept=np.packbits(squares.kept).tobytes().hex())

    def squares(self) -> Squares:
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(self.kept), np.uint8), count=self.shape[0] * self.shape[1])
        return Squares(bits.reshape(self.shape).astype(np.bool_), self.side_px)


class MemoryCard(_Card):
    """Memory of a worker by the plan."""

    worker_bytes: int
    workers: int


class RunCard(_Card):
    """`run.json`: the options, the image, the model and the geometry of a run."""

    format_version: int = FORMAT_VERSION
    created: str
    image: ImageCard
    model: ModelRef
    geometry: GeometryCard
    precision: str
    tta: str
    compiled: bool | None = None  # as asked; None leaves it to the device
    probabilities: tuple[ClassCard, ...] = ()  # the classes whose probabilities are written, when asked for
    approximate: bool  # a network without finite bounds, whose seams are not exact
    maths_version: int
    foreground: str
    foreground_digest: str | None = None  # of the mask image that `foreground` names
    squares: SquaresCard | None = None  # of tissue; None where tiles are judged one by one, as by earlier versions
    memory: MemoryCard
    versions: dict[str, str]
    notes: dict[str, Any]  # measured facts: how the precision was chosen, the seam error of an approximate halo

    def with_squares(self, squares: Squares | None) -> RunCard:
        """The same card, of a run that looks for nothing outside of some squares."""
        return self.model_copy(update={"squares": None if squares is None else SquaresCard.of(squares)})

    def identity(self) -> dict[str, object]:
        """Facts that make two runs the same run: everything that can change a label, and nothing else.

        Where the image lies, when the run was made and on how many workers is left out.
        """
        return {
            "image fingerprint": self.image.fingerprint,
            "image level": self.image.level,
            "view": self.image.view,
            "series": self.image.view.series if self.image.view is not None else None,
            "image extent": self.image.extent,
            "bands": self.image.bands,
            "no data": self.image.no_data,
            "model": self.model.name,
            "model digest": self.model.digest,
            "core": self.geometry.core_px,
            "stride": self.geometry.stride,
            "halo": self.geometry.halo,
            "scale": self.geometry.scale,
            "offset": self.geometry.offset,
            "context": self.geometry.context,
            "precision": self.precision,
            "test-time augmentation": self.tta,
            "compiled": self.compiled,
            "probabilities": bool(self.probabilities),
            "approximate halo": self.approximate,
            "version of the maths": self.maths_version,
            "foreground": self.foreground,
            "foreground image": self.foreground_digest,
        }

    def digest(self) -> str:
        """Of all that the card says, but what may change without changing the run: when, where and on what it was made.

        What is at its default is left out, so that a card means the same to a later version that knows more.
        """
        said = self.model_dump(mode="json", exclude_defaults=True)
        for group, names in ((said, ("created", "memory", "versions", "notes")), (said["image"], ("path", "version"))):
            for name in names:
                group.pop(name, None)
        said["model"].pop("reference", None)
        return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()

    def differences(self, other: RunCard) -> list[str]:
        """One line per point in which the other card describes a different run."""
        mine, others = self.identity(), other.identity()
        if self.foreground_digest is None and self.foreground == other.foreground:
            others["foreground image"] = None  # a run that began before it was recorded
        if self.image.no_data is None and other.image.no_data and other.image.no_data.told_by == (NUMBERS,):
            others["no data"] = None  # a run that began before it was recorded, of an image that names no such value
        return [f"{key}: {mine[key]} here, {others[key]} asked for" for key in mine if mine[key] != others[key]]


def _is_nan(value: float | None) -> bool:
    return value is not None and math.isnan(value)


_Read = TypeVar("_Read", bound=BaseModel)


def read_card(folder: Place, name: str, kind: type[_Read], of: str) -> _Read:
    """The card in a folder that must hold one, of a run or of an archive.

    Raises:
        RunError: it isn't there, or is damaged.
    """
    file = folder / name
    try:
        return kind.model_validate_json(read_at(file))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(f"{folder} holds no {of} (no {name}); give the folder that --out named") from error
    except IsADirectoryError as error:
        raise RunError(f"{file} is no {of} card ({error.strerror}); restore it from a backup") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise RunError(f"{file} is no {of} card ({where}: {problem['msg']}); restore it from a backup") from error
