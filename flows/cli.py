"""The command line. Imports stay inside the commands: `overtile --help` answers without loading Ray or torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.archive import archive_command
from flows.commands.archive_text import print_archive
from flows.commands.doctor import doctor_command
from flows.commands.exit_codes import one_line_errors
from flows.commands.export import export_command
from flows.commands.help import START, Command, Group, docs, epilog
from flows.commands.import_model import import_command
from flows.commands.models import (
    export_model_command,
    group_command,
    inspect_command,
    list_command,
    show_command,
)
from flows.commands.options import RunOrArchive, takes
from flows.commands.output import console, print_json, with_output
from flows.commands.program import tell_program
from flows.commands.rerun import rerun_command
from flows.commands.run_and_report import run_and_report
from flows.commands.segment import segment_command
from flows.commands.serve import serve_command
from flows.commands.shell_script import complete_from_the_first_try
from flows.commands.train import train_command
from flows.commands.verify import verify_command
from flows.commands.view import view_command
from flows.config.run import FinishedRun, SegmentConfig
from flows.reporting.escaping import PlainConsole
from flows.reporting.logs import keep_warnings_plain
from tiling.storage.place import place_of

complete_from_the_first_try()
SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="overtile",
    cls=Group,
    help="Segments images too large for one pass of a network: exact seams, bounded memory, resume.",
    epilog=f"Start with:\n\n  overtile demo\n\n  overtile segment slide.svs -o runs/slide\n\nDocs: {docs(START)}",
    no_args_is_help=True,
    context_settings=SETTINGS,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(cls=Group, epilog=epilog("models"), context_settings=SETTINGS, invoke_without_command=True)
app.add_typer(models_app, name="models")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"overtile {version('overtile')}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
]


@app.callback()
def main_command(*, version_wanted: VersionOption = False) -> None:
    """Segments images too large for one pass of a network: exact seams, bounded memory, resume."""
    del version_wanted


@takes(FinishedRun)
def status_command(*, run: RunOrArchive) -> None:
    """Show what the ledger of a run or an archive says: counts, rates, ETA and the tile grid."""
    from flows.commands.facts import run_facts
    from flows.commands.terminal import print_status
    from tiling.runs.run import Run

    if (place_of(run) / "archive.json").is_file():
        print_archive(run)
        return
    opened = Run.open(place_of(run))
    print_status(console(), opened)
    print_json(run_facts(opened))


def demo_command(
    out_folder: Annotated[Path, typer.Option("--out", "-o", help="The run folder.")] = Path("runs/demo"),
) -> None:
    """Find the blood vessels in a real photograph of a retina that comes with scikit-image."""
    from flows.commands.demo import demo_image
    from flows.lifecycle.environment import has_cluster

    workers = 2 if has_cluster() else None
    config = SegmentConfig(image=demo_image(), out=out_folder, model="vessels", core=256, workers=workers)
    run_and_report("segment", config)


def _with_one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, its errors shown on one line."""

    @wraps(command)
    def reported(*args: Any, **options: Any) -> None:
        keep_warnings_plain()
        try:
            with one_line_errors():
                command(*args, **options)
        finally:
            tell_program(PlainConsole(stderr=True))

    return reported


@dataclass(frozen=True, slots=True)
class _Entry:
    """A command of the table below: whether it prints JSON, whether it shows progress, and its page of examples."""

    command: Callable[..., None]
    json: bool = False
    progress: bool = False
    page: str = ""
    hidden: bool = False


COMMANDS = {
    "segment": _Entry(segment_command, json=True, progress=True),
    "rerun": _Entry(rerun_command, json=True, progress=True),
    "verify": _Entry(verify_command, json=True, progress=True),
    "status": _Entry(status_command, json=True),
    "export": _Entry(export_command, json=True),
    "view": _Entry(view_command),
    "archive": _Entry(archive_command, json=True, progress=True),
    "serve": _Entry(serve_command),
    "train": _Entry(train_command),
    "demo": _Entry(demo_command, json=True, progress=True),
    "doctor": _Entry(doctor_command, json=True),
}

MODEL_COMMANDS = {
    "list": _Entry(list_command, json=True),
    "show": _Entry(show_command, json=True),
    "import": _Entry(import_command, json=True),
    "export": _Entry(export_model_command, json=True, page="export-model"),
    "inspect": _Entry(inspect_command, json=True, page="show", hidden=True),
}


def _register(group: typer.Typer, name: str, entry: _Entry, title: str) -> None:
    command = with_output(title, entry.command, json=entry.json, progress=entry.progress)
    group.command(name, cls=Command, epilog=epilog(entry.page or name), context_settings=SETTINGS, hidden=entry.hidden)(
        _with_one_line_errors(command)
    )


models_app.callback(invoke_without_command=True)(group_command)
for _name, _entry in MODEL_COMMANDS.items():
    _register(models_app, _name, _entry, f"models {_name}")
for _name, _entry in COMMANDS.items():
    _register(app, _name, _entry, _name)
