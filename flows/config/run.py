"""Options of flows: one definition for the command line, job files and Prefect's forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PlainValidator,
    PositiveInt,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import SkipJsonSchema

from flows.errors import ConfigError
from tiling.errors import PlanError
from tiling.escaping import is_utf8
from tiling.export.formats import AUTO, parse_formats
from tiling.selection.choose_view import ViewRequest
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, place_of
from unet_core.bundles.origin import Origin


def _as_place(value: object) -> Place:
    if not isinstance(value, str | Path | ObjectPath):
        raise ValueError("a path or a URL is needed")
    if not is_utf8(value):
        raise ValueError(
            f"{str(value)[-80:]!a} is not UTF-8: neither run.json nor Prefect can name it; rename it, or give a "
            f"symbolic link to it"
        )
    return place_of(value)


def _as_output(value: object) -> Place:
    place = _as_place(value)
    if isinstance(place, ObjectPath):
        place.expect_writable()
    return place


_AS_TEXT = (PlainSerializer(str, return_type=str), WithJsonSchema({"type": "string", "format": "path"}))

Where = Annotated[Path | ObjectPath, PlainValidator(_as_place), *_AS_TEXT]
"""A local path, or the URL of a place in an object store or of an image on the web."""

Output = Annotated[Path | ObjectPath, PlainValidator(_as_output), *_AS_TEXT]
"""The same, where a run can be."""

Side = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Device = Literal["auto", "cpu", "cuda"]
"""On what actors compute; `auto` takes GPUs where the cluster has one at the start."""

DEVICE_HELP = "auto, cpu, or cuda: wait for GPUs that a cluster doesn't have yet, and never fall back to processors."

UM_PER_METRE = 1e6


def _as_tile(value: object) -> object:
    """A tile as a person writes it: `3,12`."""
    if not isinstance(value, str):
        return value
    row, _, col = value.partition(",")
    if not (row.strip().isdecimal() and col.strip().isdecimal()):
        raise ValueError("a tile is ROW,COL, for example 3,12")
    return int(row), int(col)


TileName = Annotated[
    tuple[NonNegativeInt, NonNegativeInt],
    BeforeValidator(_as_tile),
    PlainSerializer(lambda tile: f"{tile[0]},{tile[1]}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+ *, *[0-9]+$", "title": "ROW,COL"}),
]
"""A tile by row and column; one text field in a form."""


class ConfigBase(BaseModel):
    """Root of all configurations."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageOptions(ConfigBase):
    """The image, and the run's folder."""

    image: Where = Field(description="The image: any that docs/formats.md lists; a path or URL.")
    out: Output = Field(description="The run folder, a path or URL. The same folder again resumes the run.")


class Options(ConfigBase):
    """How an image is segmented, or every image of an archive."""

    model: str = Field(
        default="nuclei",
        description="A shipped model's name, a bundle's folder, a .pt2, a folder of segmentation_models_pytorch, or "
        "package.module:factory.",
    )
    card: Path | None = Field(
        default=None, description="Bands, classes and normalisation of a model that is no bundle."
    )
    weights: Path | None = Field(default=None, description="Weights of a factory's network.")
    # In no form: whoever could fill it in would run code of his own.
    trust_code: SkipJsonSchema[bool] = Field(default=False, description="Leave to run the factory's Python code.")
    level: int | None = Field(
        default=None,
        ge=0,
        description="The pyramid level to segment as it is, 0 the finest; by the model's pixel size when not given.",
    )
    mpp: Side | None = Field(default=None, description="Pixel size to segment at, in µm; the model's when not given.")
    gsd: Side | None = Field(default=None, description="The same in metres.")
    image_mpp: Side | None = Field(
        default=None, description="What a pixel of level 0 measures, in µm, where the image doesn't say or is wrong."
    )
    as_is: bool = Field(default=False, description="Take the pixels as they are, whatever they measure.")
    bands: str | None = Field(default=None, description="Bands by number from 1 or by name, as 3,2,1 or DAPI,CD8.")
    z: int = Field(default=0, ge=0, description="Focal plane, from 0.")
    t: int = Field(default=0, ge=0, description="Point in time, from 0.")
    series: str | None = Field(
        default=None,
        description="Which image of a file of several, by number from 0 or by name; the largest calibrated by default.",
    )
    region: str | None = Field(
        default=None,
        description="Part of the image: Y0,X0,Y1,X1 in pixels of level 0, map:XMIN,YMIN,XMAX,YMAX, or a .geojson file.",
    )
    normalise: str | None = Field(
        default=None,
        description="Range of values that becomes the model's, the same for every tile: LOW,HIGH or percentiles:P,Q.",
    )
    core: PositiveInt | None = Field(default=None, description="Side of a tile's core in px; chosen when not given.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32", description="The network's arithmetic; auto takes bfloat16 where labels don't suffer."
    )
    tta: Literal["none", "flips", "d4"] = Field(default="none", description="Test-time augmentation.")
    compiled: bool | None = Field(
        default=None, description="Compile the network with torch.compile; where it pays, on a GPU, when not given."
    )
    probabilities: bool = Field(default=False, description="Also write each class's probability, in 8 bits.")
    halo: str = Field(
        default="exact",
        pattern=r"^(exact|approximate:[1-9][0-9]*)$",
        description="exact, or approximate:PX for a network without finite bounds; its seam error is measured.",
    )
    foreground: str = Field(default="auto", description="auto, none, or a mask image: which tiles to compute.")
    workers: PositiveInt | None = Field(default=None, description="Actors; one per GPU or core when not given.")
    device: Device = Field(default="auto", description=DEVICE_HELP)
    staging: bool = Field(default=True, description="Stage tiles to Zarr; without it actors read the image itself.")
    keep_staged: bool = Field(default=False, description="Keep the staged tiles when the mask is complete.")
    ray_address: str | None = Field(default=None, description="A running Ray cluster; an embedded one without it.")
    export: Annotated[str, AfterValidator(parse_formats)] = Field(
        default=AUTO, description="Formats to write at the end: auto, none, or names with commas in between."
    )

    def origin(self) -> Origin:
        """Where the model comes from."""
        return Origin(self.model, self.weights, trust_code=self.trust_code)

    def view_request(self) -> ViewRequest:
        """The request for pixels that these options make.

        Raises:
            PlanError: one pixel size in two units.
        """
        if self.mpp is not None and self.gsd is not None:
            raise PlanError("--mpp and --gsd are one pixel size in two units; give one of them")
        return ViewRequest(
            level=self.level,
            pixel_um=self.mpp if self.gsd is None else self.gsd * UM_PER_METRE,
            image_um=self.image_mpp,
            as_is=self.as_is,
            bands=self.bands,
            z=self.z,
            t=self.t,
            series=self.series,
            region=self.region,
            normalise=self.normalise,
        )

    @property
    def approximate_halo_px(self) -> int | None:
        """The halo that was asked for, for a network without finite bounds."""
        kind, _, pixels = self.halo.partition(":")
        return int(pixels) if kind == "approximate" else None


class SegmentConfig(Options, ImageOptions):
    """Segment one image."""


class RerunConfig(ConfigBase):
    """Compute single tiles of a finished run again."""

    run: Output = Field(description="The run folder, a path or URL.")
    tiles: tuple[TileName, ...] = Field(default=(), description="Tiles as ROW,COL, for example 3,12.")
    failed: bool = Field(default=False, description="Also every tile that failed.")
    damaged: bool = Field(default=False, description="Also every tile that verification found damaged.")
    workers: PositiveInt | None = Field(default=None, description="Actors; one per GPU or core when not given.")
    device: Device = Field(default="auto", description=DEVICE_HELP)
    ray_address: str | None = Field(default=None, description="A running Ray cluster; an embedded one without it.")


class VerifyConfig(ConfigBase):
    """Check a run: every shard, the pyramid, and a sample of tiles and seams computed again."""

    run: Output = Field(description="The run folder, a path or URL.")
    tiles: NonNegativeInt = Field(default=4, description="Tiles to compute again.")
    seams: NonNegativeInt = Field(default=4, description="Places across tiles' borders to compute with wider context.")
    seed: int = Field(default=0, description="Draws the sample; another seed looks elsewhere.")
    workers: PositiveInt | None = Field(default=None, description="Actors; one per GPU or core when not given.")
    device: Device = Field(default="auto", description=DEVICE_HELP)
    ray_address: str | None = Field(default=None, description="A running Ray cluster; an embedded one without it.")


def _kinds(kind: type[ConfigBase]) -> Iterator[type[ConfigBase]]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)


_LONGEST_SHOWN = 80

Config = TypeVar("Config", bound=BaseModel)


def checked(kind: type[Config], config: Config | Mapping[str, Any]) -> Config:
    """Options as a checked configuration: parameters of a deployment and tables of a job file are mappings.

    Raises:
        ConfigError: a key that there isn't, or a value that can't be; the message names what may be.
    """
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        raise ConfigError(problem_in(error)) from error


def problem_in(error: ValidationError) -> str:
    """The invalid option on one line: which value, and what it may be."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or error.title
    kind = {each.__name__: each for each in _kinds(ConfigBase)}.get(error.title)
    known = kind.model_fields if kind is not None else {}
    if first["type"] == "extra_forbidden" and known:
        return f"{where}: there is no such key; known are {', '.join(known)}"
    about = known[str(first["loc"][0])].description if first["loc"] and str(first["loc"][0]) in known else None
    meaning = f"; {about}" if about else ""
    if first["type"] == "missing":
        return f"{where}: a value is needed{meaning}"
    given = repr(first["input"])
    shown = given if len(given) <= _LONGEST_SHOWN else f"{given[:_LONGEST_SHOWN]}…"
    return f"{where}: {first['msg']}, not {shown}{meaning}"
