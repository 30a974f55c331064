"""`overtile train`: a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.output import console

RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe: data, card and training, in TOML.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="The folder; runs/train-NAME by default. The same one again resumes.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads of each process; the recipe's by default.")]
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that train together; one per GPU by default.")
]


def train_command(
    recipe: RecipeArgument,
    out_folder: OutOption = None,
    threads: ThreadsOption = None,
    processes: ProcessesOption = None,
) -> None:
    """Train a model of your own; the same command again resumes."""
    from flows.commands.terminal import print_training
    from flows.training.train import train

    print_training(console(), train(recipe, out_folder, threads, processes, live=True))
