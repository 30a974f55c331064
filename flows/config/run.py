"""Options, each declared once: the command line, Python, job files and Prefect's forms are made of these types."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
)
from pydantic.json_schema import SkipJsonSchema

from flows.config.base import ConfigBase
from flows.config.option_types import Cli, Joined, LocalFile, Output, TileName, Where, from_home
from tiling.errors import PlanError
from tiling.export.formats import AUTO, parse_formats
from tiling.selection.view_request import ViewRequest
from tiling.sources.scene.methods import FORM
from tiling.view import View
from unet_core.bundles.origin import Origin

Side = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Device = Literal["auto", "cpu", "cuda"]
"""On what actors compute; `auto` takes GPUs where the cluster has one at the start."""

UM_PER_METRE = 1e6

OBJECTS_AUTO, OBJECTS_COMPONENTS, OBJECTS_NONE = "auto", "components", "none"


def _as_object_rule(text: str) -> str:
    if text not in (OBJECTS_AUTO, OBJECTS_COMPONENTS, OBJECTS_NONE) and not all(text.partition(":")):
        raise ValueError("objects are auto, components, none, or by code as package.module:factory")
    return text


class ImageOptions(ConfigBase):
    """The image, and the run's folder."""

    image: Annotated[Where, Cli(is_word=True, metavar="IMAGE", is_repeatable=True)] = Field(
        description="Any image that docs/formats.md lists, a path or URL; the bands of a scene as NAME=FILE."
    )
    out: Annotated[Output, Cli(short="-o")] = Field(
        description="The run folder, a path or URL; the same folder again resumes the run."
    )


class ModelOptions(ConfigBase):
    """Network that labels the pixels."""

    panel = "Model"

    model: Annotated[str, AfterValidator(from_home), Cli(short="-m", metavar="MODEL")] = Field(
        default="nuclei",
        description="A shipped model's name, a bundle's folder, a .pt2 or .onnx, a package of bioimage.io or MONAI, a "
        "folder of segmentation_models_pytorch, hf:OWNER/NAME@COMMIT of the Hugging Face Hub, or "
        "package.module:factory.",
    )
    card: LocalFile | None = Field(
        default=None, description="Bands, classes and normalisation of a model that is no bundle: TOML or JSON."
    )
    weights: LocalFile | None = Field(
        default=None, description="Weights of a factory's network: .safetensors, or .pt or .pth with a state_dict."
    )
    # In no form: whoever could fill it in would run code of his own.
    trust_code: SkipJsonSchema[bool] = Field(default=False, description="Allow the factory's Python code to run.")

    def origin(self) -> Origin:
        """Origin of the model."""
        return Origin(self.model, self.weights, trust_code=self.trust_code, card=self.card)


class PixelOptions(ConfigBase):
    """Pixels of an image that are segmented."""

    panel = "Pixels"

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
    bands: Annotated[Joined | None, Cli(metavar="BAND,…")] = Field(
        default=None,
        description="Bands by number from 1 or by name, as 3,2,1 or DAPI,CD8,CD3; or computed, as (nir-red)/(nir+red).",
    )
    scaled: bool = Field(
        default=False, description="Take values in the bands' own units, by the scale and offset that the image says."
    )
    crs: Annotated[str | None, Cli(metavar="CODE")] = Field(
        default=None,
        pattern=r"^[A-Za-z]+:[\w.]+$",
        description="The CRS, as EPSG:3857, in which files are laid on one grid; that of the finest when not given.",
    )
    resampling: Annotated[Joined, Cli(metavar="METHOD|BAND=METHOD,…")] = Field(
        default="auto",
        pattern=FORM,
        description="How files of other pixels are laid on a scene's grid: nearest, bilinear or average, of all bands "
        "or by name as scl=nearest; by the kind of band when not given.",
    )
    z: int = Field(default=0, ge=0, description="Focal plane, from 0.")
    t: int = Field(default=0, ge=0, description="Point in time, from 0.")
    series: Annotated[Joined | None, Cli(metavar="N|NAME")] = Field(
        default=None,
        description="Which image of a file of several, by number from 0 or by name; the largest with a pixel size "
        "when not given.",
    )
    damaged: Literal["fail", "mask"] = Field(
        default="fail",
        description="Segments of a TIFF that don't decode: fail the tiles that need them, or mask their pixels as no "
        "data, for which all are decoded once when the run begins.",
    )
    region: Annotated[Joined | None, Cli(metavar="REGION")] = Field(
        default=None,
        description="Part of the image: Y0,X0,Y1,X1 in pixels of level 0, map:XMIN,YMIN,XMAX,YMAX, or polygons in a "
        ".geojson file.",
    )
    normalise: Annotated[Joined | None, Cli(metavar="LOW,HIGH")] = Field(
        default=None,
        description="Range of values that becomes the model's, the same for every tile: LOW,HIGH or percentiles:1,99.",
    )

    def image_view(self) -> View:
        """All of the image that is meant, as it is."""
        return View(series=self.series, crs=self.crs, resampling=self.resampling)

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
            scaled=self.scaled,
            z=self.z,
            t=self.t,
            series=self.series,
            region=self.region,
            normalise=self.normalise,
            crs=self.crs,
            resampling=self.resampling,
            damaged=None if self.damaged == "fail" else self.damaged,
        )


class TileOptions(ConfigBase):
    """Tiles that are computed, and how."""

    panel = "Tiles"

    core: Annotated[PositiveInt | None, Cli(metavar="PX")] = Field(
        default=None, description="Side of a tile's core in px; chosen when not given."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32", description="The network's arithmetic; auto takes bfloat16 where labels don't suffer."
    )
    tta: Literal["none", "flips", "d4"] = Field(
        default="none", description="Test-time augmentation: average over flips, or d4, the square's symmetries."
    )
    compiled: Annotated[bool | None, Cli("--compile/--no-compile")] = Field(
        default=None, description="Compile the network with torch.compile; where it pays, on a GPU, when not given."
    )
    halo: Annotated[str, Cli(metavar="exact|approximate:PX")] = Field(
        default="exact",
        pattern=r"^(exact|approximate:[1-9][0-9]*)$",
        description="exact, or approximate:PX for a network without finite bounds; its seam error is measured.",
    )
    foreground: Annotated[Joined, Cli(metavar="auto|none|IMAGE")] = Field(
        default="auto",
        description="Which tiles to compute: auto, none for all, or a mask image; in an archive, one in a manifest.",
    )

    @property
    def approximate_halo_px(self) -> int | None:
        """The halo that was asked for, for a network without finite bounds."""
        kind, _, pixels = self.halo.partition(":")
        return int(pixels) if kind == "approximate" else None


class MachineOptions(ConfigBase):
    """Machine and devices on which tiles are computed."""

    panel = "Machine"

    workers: PositiveInt | None = Field(default=None, description="Actors; one per GPU or core when not given.")
    device: Device = Field(
        default="auto",
        description="auto, cpu, or cuda: wait for GPUs that a cluster doesn't have yet, and never fall back to "
        "processors.",
    )
    ray_address: Annotated[str | None, Cli(metavar="HOST:PORT")] = Field(
        default=None, description="A running Ray cluster; an embedded one when not given."
    )


class StagingOptions(ConfigBase):
    """Way of an image's tiles to the actors."""

    panel = "Staging"

    staging: bool = Field(default=True, description="Stage tiles to Zarr; without it actors read the image itself.")
    keep_staged: Annotated[bool, Cli("--keep-staged/--no-keep-staged")] = Field(
        default=False, description="Keep the staged tiles when the mask is complete."
    )


class ResultOptions(ConfigBase):
    """Results that are written."""

    panel = "Results"

    probabilities: bool = Field(default=False, description="Also write each class's probability, in 8 bits.")
    objects: Annotated[str, AfterValidator(_as_object_rule), Cli(metavar="auto|components|none|RULE")] = Field(
        default=OBJECTS_AUTO,
        description="Number objects one by one: auto (as the model's card says), components (each area of a class), "
        "none, or a RULE as package.module:factory.",
    )
    export: Annotated[Joined, AfterValidator(parse_formats), Cli(metavar="FORMAT,…")] = Field(
        default=AUTO,
        description="Formats to write at the end: auto (what suits), none, or names with commas in between.",
    )

    @property
    def objects_are_code(self) -> bool:
        """True if the rule of objects is code of the user's own."""
        return ":" in self.objects


class Options(ResultOptions, StagingOptions, MachineOptions, TileOptions, PixelOptions, ModelOptions):
    """Options of a segmentation, of one image or of every image of an archive."""


class ImageResultOptions(ConfigBase):
    """Results that are written of one image."""

    panel = "Results"

    labels_into: Annotated[Output | None, Cli(metavar="IMAGE.zarr")] = Field(
        default=None,
        description="Also write the numbered objects into the labels of the image itself, which is that OME-Zarr 0.5 "
        "on a disk.",
    )


class SegmentConfig(ImageResultOptions, Options, ImageOptions):
    """Segment one image."""


class FinishedRun(ConfigBase):
    """A run that is there already."""

    run: Annotated[Output, Cli(is_word=True, metavar="RUN")] = Field(description="A run folder, a path or URL.")


class WhichTiles(FinishedRun):
    """Tiles of a run."""

    tiles: Annotated[tuple[TileName, ...], Cli("--tile", "ROW,COL", is_repeatable=True)] = Field(
        default=(), description="Tiles as ROW,COL, for example 3,12."
    )
    failed: bool = Field(default=False, description="Also every tile that failed.")
    damaged: bool = Field(default=False, description="Also every tile that verification found damaged.")


class RerunConfig(MachineOptions, WhichTiles):
    """Compute single tiles of a finished run again."""


class Sample(FinishedRun):
    """Share of a run that is computed again to check it."""

    tiles: NonNegativeInt = Field(default=4, description="Tiles to compute again and compare.")
    seams: NonNegativeInt = Field(default=4, description="Places across tiles' borders to compute with wider context.")
    seed: int = Field(default=0, description="Draws the sample; another seed looks elsewhere.")


class VerifyConfig(MachineOptions, Sample):
    """Check a run: every shard, the pyramid, and a sample of tiles and seams computed again."""
