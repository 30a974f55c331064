"""`overtile segment`: one image into a run folder."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from flows.commands.import_model import TrustOption, WeightsOption
from flows.commands.options import (
    AsIsOption,
    BandsOption,
    CompileOption,
    DeviceOption,
    ExportOption,
    GsdOption,
    HaloOption,
    ImageMppOption,
    LevelOption,
    ModelCardOption,
    MppOption,
    NormaliseOption,
    ProbabilitiesOption,
    RayOption,
    RegionOption,
    SeriesOption,
    StagingOption,
    TOption,
    WorkersOption,
    ZOption,
)
from flows.commands.run_flow import run_flow
from flows.config.run import SegmentConfig
from tiling.storage.place import place_of


class Precision(StrEnum):
    """Arithmetic of the network."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Tta(StrEnum):
    """Symmetries that are averaged."""

    none = "none"
    flips = "flips"
    d4 = "d4"


ImageArgument = Annotated[str, typer.Argument(help="Any image that docs/formats.md lists, a path or URL.")]
OutOption = Annotated[
    str, typer.Option("--out", help="The run folder, a path or URL; the same folder again resumes the run.")
]
ModelOption = Annotated[
    str, typer.Option(help="A shipped model's name, a bundle's folder, a .pt2, or package.module:factory.")
]
CoreOption = Annotated[int | None, typer.Option(min=1, help="Side of a tile's core in px.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Arithmetic of the network.")]
TtaOption = Annotated[Tta, typer.Option(help="Test-time augmentation: average over flips or the square's symmetries.")]
ForegroundOption = Annotated[str, typer.Option(help="auto, none, or a mask image: which tiles to compute.")]
KeepOption = Annotated[bool, typer.Option(help="Keep the staged tiles when the mask is complete.")]


def segment_command(
    image: ImageArgument,
    out_folder: OutOption,
    model: ModelOption = "nuclei",
    card: ModelCardOption = None,
    weights: WeightsOption = None,
    trust_code: TrustOption = False,
    level: LevelOption = None,
    mpp: MppOption = None,
    gsd: GsdOption = None,
    image_mpp: ImageMppOption = None,
    as_is: AsIsOption = False,
    bands: BandsOption = None,
    z: ZOption = 0,
    t: TOption = 0,
    series: SeriesOption = None,
    region: RegionOption = None,
    normalise: NormaliseOption = None,
    core: CoreOption = None,
    precision: PrecisionOption = Precision.float32,
    tta: TtaOption = Tta.none,
    compiled: CompileOption = None,
    probabilities: ProbabilitiesOption = False,
    halo: HaloOption = "exact",
    foreground: ForegroundOption = "auto",
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    staging: StagingOption = True,
    keep_staged: KeepOption = False,
    export_formats: ExportOption = "auto",
    ray_address: RayOption = None,
) -> None:
    """Segment one image; the same command again resumes."""
    config = SegmentConfig(
        image=place_of(image),
        out=place_of(out_folder),
        model=model,
        card=card,
        weights=weights,
        trust_code=trust_code,
        level=level,
        mpp=mpp,
        gsd=gsd,
        image_mpp=image_mpp,
        as_is=as_is,
        bands=bands,
        z=z,
        t=t,
        series=series,
        region=region,
        normalise=normalise,
        core=core,
        precision=precision.value,
        tta=tta.value,
        compiled=compiled,
        probabilities=probabilities,
        halo=halo,
        foreground=foreground,
        workers=workers,
        device=device,
        staging=staging,
        keep_staged=keep_staged,
        export=export_formats,
        ray_address=ray_address,
    )
    run_flow("segment", config)
