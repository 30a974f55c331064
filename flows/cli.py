"""The command line. Imports stay inside the commands: `overtile --help` answers without loading Ray or torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.archive import archive_command, print_archive
from flows.commands.doctor import doctor_command
from flows.commands.exit_codes import one_line_errors
from flows.commands.export import export_command
from flows.commands.import_model import import_command
from flows.commands.models import inspect_command, list_command
from flows.commands.options import takes
from flows.commands.rerun import rerun_command
from flows.commands.run_and_report import run_and_report
from flows.commands.segment import segment_command
from flows.commands.serve import serve_command
from flows.commands.train import train_command
from flows.commands.verify import verify_command
from flows.commands.view import view_command
from flows.config.run import FinishedRun, SegmentConfig
from flows.reporting.escaping import PlainConsole
from tiling.storage.place import place_of

app = typer.Typer(
    name="overtile",
    help="Segments images too large for one pass of a network: exact seams, bounded memory, resume.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="Models that can be used.", invoke_without_command=True)
app.add_typer(models_app, name="models")


@takes(FinishedRun)
def status_command(*, run: str) -> None:
    """Show what the ledger of a run or an archive says: counts, rates, ETA and the tile grid."""
    from flows.commands.terminal import print_status
    from tiling.runs.run import Run

    if (place_of(run) / "archive.json").is_file():
        print_archive(run)
        return
    print_status(PlainConsole(), Run.open(place_of(run)))


def demo_command(
    out_folder: Annotated[Path, typer.Option("--out", help="The run folder.")] = Path("runs/demo"),
) -> None:
    """Find the blood vessels in a real photograph of a retina that comes with scikit-image."""
    from flows.commands.demo import demo_image

    config = SegmentConfig(image=demo_image(), out=out_folder, model="vessels", core=256, workers=2)
    run_and_report("segment", config)


def _with_one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, its errors shown on one line."""

    @wraps(command)
    def told(*args: Any, **options: Any) -> None:
        with one_line_errors():
            command(*args, **options)

    return told


models_app.callback(invoke_without_command=True)(list_command)
models_app.command("inspect")(_with_one_line_errors(inspect_command))
models_app.command("import")(_with_one_line_errors(import_command))

for _name, _command in {
    "segment": segment_command,
    "rerun": rerun_command,
    "verify": verify_command,
    "status": status_command,
    "export": export_command,
    "train": train_command,
    "demo": demo_command,
    "archive": archive_command,
    "serve": serve_command,
    "doctor": doctor_command,
    "view": view_command,
}.items():
    app.command(_name)(_with_one_line_errors(_command))
