"""The command line. Imports stay inside the commands: `overtile --help` answers without loading Ray or torch."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.table import Table

from flows.commands.archive import archive_command, print_archive, rerun_archive
from flows.commands.doctor import doctor_command
from flows.commands.export import export_command
from flows.commands.serve import serve_command
from flows.commands.view import view_command
from flows.config import RerunConfig, SegmentConfig, VerifyConfig, problem_in
from flows.environment import quiet_environment
from flows.errors import FlowError, StoppedError
from flows.importing import TrustOption, WeightsOption, import_command
from flows.plain import PlainConsole, plain
from flows.run_options import (
    CompileOption,
    DeviceOption,
    ExportOption,
    HaloOption,
    ModelCardOption,
    ProbabilitiesOption,
    RayOption,
    StagingOption,
    WorkersOption,
)
from flows.stopping import told_of_sigterm
from flows.view_options import (
    AsIsOption,
    BandsOption,
    GsdOption,
    ImageMppOption,
    LevelOption,
    MppOption,
    NormaliseOption,
    RegionOption,
    TOption,
    ZOption,
)
from tiling.storage import Place, place_of

EXIT_UNEXPECTED, EXIT_USAGE, EXIT_FAILED_TILES, EXIT_SIGNALLED = 1, 2, 3, 128

app = typer.Typer(
    name="overtile",
    help="Segments images too large for one pass of a network: exact seams, bounded memory, resume.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Models that can be used.", invoke_without_command=True)
app.add_typer(models_app, name="models")

out = PlainConsole()
err = PlainConsole(stderr=True)


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
RunToMendArgument = Annotated[str | None, typer.Argument(help="A run folder, a path or URL.")]
ArchiveOption = Annotated[str | None, typer.Option(help="An archive's folder, instead of a run.")]
RunArgument = Annotated[str, typer.Argument(help="A run folder, a path or URL.")]
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
TileOption = Annotated[list[str] | None, typer.Option("--tile", help="ROW,COL of a tile; may be repeated.")]
FailedOption = Annotated[bool, typer.Option("--failed", help="Every tile that failed.")]
DamagedOption = Annotated[bool, typer.Option("--damaged", help="Every tile that verification found damaged.")]
TilesOption = Annotated[int, typer.Option(min=0, help="Tiles to compute again and compare.")]
SeamsOption = Annotated[int, typer.Option(min=0, help="Places across borders to compute with wider context.")]
SeedOption = Annotated[int, typer.Option(help="Draws the sample; another seed looks elsewhere.")]


@app.command()
def segment(
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
    with _told_in_one_line():
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
        _run_flow("segment", config)


@app.command()
def rerun(
    run: RunToMendArgument = None,
    archive: ArchiveOption = None,
    tile: TileOption = None,
    failed: FailedOption = False,
    damaged: DamagedOption = False,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    ray_address: RayOption = None,
) -> None:
    """Compute single tiles of a run again, or all failed slides of an archive; no other byte of a mask changes."""
    tiles = tuple(_parse_tile(text) for text in tile or [])
    with _told_in_one_line():
        if (run is None) == (archive is None):
            raise FlowError("a rerun is of one run, or with --archive of an archive; name one of the two")
        if archive is not None:
            if not failed or damaged or tiles:
                raise FlowError("--archive reruns what failed in all its runs; give --failed, and --tile with one run")
            rerun_archive(
                archive, workers=workers, device=None if device == "auto" else device, ray_address=ray_address
            )
            return
        assert run is not None
        config = RerunConfig(
            run=place_of(run),
            tiles=tiles,
            failed=failed,
            damaged=damaged,
            workers=workers,
            device=device,
            ray_address=ray_address,
        )
        _run_flow("rerun", config)


@app.command()
def verify(
    run: RunArgument,
    tiles: TilesOption = 4,
    seams: SeamsOption = 4,
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    ray_address: RayOption = None,
) -> None:
    """Check a run: every shard against its digest, the pyramid, and samples computed again."""
    with _told_in_one_line():
        config = VerifyConfig(
            run=place_of(run),
            tiles=tiles,
            seams=seams,
            seed=seed,
            workers=workers,
            device=device,
            ray_address=ray_address,
        )
        quiet_environment()
        _expect_run(config.run)
        from flows.terminal import print_verdict, run_with_progress

        verdict = run_with_progress(out, "verify", config)
        print_verdict(out, verdict)
        if verdict.unfinished:
            out.print(verdict.unfinished, markup=False, highlight=False, soft_wrap=True)
        if not verdict.is_sound:
            sys.exit(EXIT_FAILED_TILES)


@app.command()
def status(run: RunArgument) -> None:
    """Show what the ledger of a run or an archive says: counts, rates, ETA and the tile grid."""
    from flows.terminal import print_status
    from tiling.run import Run

    with _told_in_one_line():
        if (place_of(run) / "archive.json").is_file():
            print_archive(run)
            return
        print_status(out, Run.open(place_of(run)))


@app.command("export")
@wraps(export_command)
def export(*args: Any, **options: Any) -> None:
    with _told_in_one_line():
        export_command(*args, **options)


@app.command("train")
def train_command(
    recipe: Annotated[Path, typer.Argument(metavar="CONFIG", help="The recipe: data, card and training, in TOML.")],
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="The folder; runs/train-NAME by default. The same one again resumes.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each process; the recipe's by default.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes that train together; one per GPU by default.")
    ] = None,
) -> None:
    """Train a model of your own; the same command again resumes."""
    from flows.terminal import print_training

    with _told_in_one_line():
        from flows.train import train

        print_training(out, train(recipe, out_folder, threads, processes, live=True))


@app.command()
def demo(out_folder: Annotated[Path, typer.Option("--out", help="The run folder.")] = Path("runs/demo")) -> None:
    """Segment a real photograph of stained tissue that comes with scikit-image."""
    from flows.demo import demo_image

    with _told_in_one_line():
        _run_flow("segment", SegmentConfig(image=demo_image(), out=out_folder, core=128, workers=2))


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context) -> None:
    """List the models that come with overtile."""
    if context.invoked_subcommand is not None:
        return
    from unet_core.card import list_bundles

    table = Table("name", "classes", "bands", "description", box=None)
    for card in list_bundles():
        classes = ", ".join(item.name for item in card.classes[1:])
        table.add_row(*map(plain, (card.name, classes, " ".join(card.bands), card.description)))
    out.print(table)


@models_app.command()
def inspect(bundle: Annotated[str, typer.Argument(help="A shipped model's name or a bundle's folder.")]) -> None:
    """Show a model's card, its exact halo and stride, and the layers that set them."""
    from flows.terminal import print_model

    with _told_in_one_line():
        print_model(out, bundle)


@models_app.command("import")
@wraps(import_command)
def import_model(*args: Any, **options: Any) -> None:
    with _told_in_one_line():
        import_command(*args, **options)


def _add(name: str, command: Callable[..., None]) -> None:
    """Add a command that lies in a module of its own."""

    @app.command(name)
    @wraps(command)
    def told(*args: Any, **options: Any) -> None:
        with _told_in_one_line():
            command(*args, **options)


_add("archive", archive_command)
_add("serve", serve_command)
_add("doctor", doctor_command)
_add("view", view_command)


def _run_flow(name: str, config: SegmentConfig | RerunConfig) -> None:
    """Run a flow with live progress; a run with failed tiles ends with an exit code of its own."""
    quiet_environment()
    if isinstance(config, SegmentConfig):
        _expect_room(config.out)
    else:
        _expect_run(config.run)
    from flows.terminal import print_outcome, run_with_progress

    outcome = run_with_progress(out, name, config)
    print_outcome(out, outcome)
    if not outcome.complete:
        sys.exit(EXIT_FAILED_TILES)


def _expect_run(folder: Place) -> None:
    """Refuse what is no run, before the driver's lock is made in it."""
    from tiling.run import Run

    Run.open(folder)


def _expect_room(folder: Place) -> None:
    """Refuse a folder that holds something else, before the driver's lock is made in it."""
    from tiling.run import Run

    Run.expect_room(folder)


@contextmanager
def _told_in_one_line() -> Generator[None]:
    """Turn errors that are the user's or the world's doing into one line and an exit code."""
    try:
        from flows.terminal import ERRORS, USAGE_ERRORS, WORLDS_ERRORS
    except KeyboardInterrupt:
        _interrupted()
    try:
        with told_of_sigterm():
            yield
    except ValidationError as error:
        _fail(f"--{problem_in(error)}", EXIT_USAGE)
    except StoppedError as error:
        _fail(str(error), EXIT_SIGNALLED + error.signal_number)
    except ERRORS as error:
        is_usage = isinstance(error, USAGE_ERRORS) and not isinstance(error, WORLDS_ERRORS)
        _fail(str(error), EXIT_USAGE if is_usage else EXIT_UNEXPECTED)
    except KeyboardInterrupt:
        _interrupted()


def _interrupted() -> NoReturn:
    err.print("stopped; the same command again goes on where it was")
    sys.exit(EXIT_SIGNALLED + signal.SIGINT)


def _parse_tile(text: str) -> tuple[int, int]:
    row, _, col = text.partition(",")
    if not (row.strip().isdecimal() and col.strip().isdecimal()):
        err.print(f"error: --tile {text!r} names no tile; give ROW,COL, for example --tile 3,12")
        sys.exit(EXIT_USAGE)
    return int(row), int(col)


def _fail(message: str, code: int) -> None:
    err.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)
