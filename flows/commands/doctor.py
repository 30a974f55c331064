"""`overtile doctor`: what this machine or cluster lacks, each line with its remedy."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from flows.doctor.checks import Check, DoctorConfig, Level
from flows.doctor.examine import examine
from flows.lifecycle.environment import quiet_environment
from flows.reporting.escaping import PlainConsole
from tiling.storage.place import place_of

EXIT_MISSING = 3

STYLE = {Level.ok: "green", Level.warning: "yellow", Level.missing: "bold red"}


def doctor_command(
    image: Annotated[str | None, typer.Option(help="An image to plan for: memory, space, reading speed.")] = None,
    out_folder: Annotated[str | None, typer.Option("--out", help="Where runs will be: a path or URL.")] = None,
    model: Annotated[
        str, typer.Option(help="The model of the plan: a shipped one's name or a bundle's folder.")
    ] = "nuclei",
    workers: Annotated[int | None, typer.Option(min=1, help="Actors of the plan; one per core by default.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster, whose nodes are asked too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
) -> None:
    """Say what this machine or cluster lacks; exits 3 where something is missing."""
    config = DoctorConfig(
        image=None if image is None else place_of(image),
        out=None if out_folder is None else place_of(out_folder),
        model=model,
        workers=workers,
        ray_address=ray_address,
    )
    quiet_environment()
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what it would warn of is a check here
    console = PlainConsole()
    checks: list[Check] = []
    for check in examine(config):
        checks.append(check)
        if not as_json:
            _show(console, check)
    counts = Counter(check.verdict for check in checks)
    if as_json:
        report = {"missing": counts[Level.missing], "warnings": counts[Level.warning]}
        console.print(json.dumps({**report, "checks": [asdict(check) for check in checks]}), soft_wrap=True)
    else:
        well, warnings, missing = (counts[verdict] for verdict in Level)
        console.print(f"{well} ok, {warnings} to think about, {missing} missing")
    if counts[Level.missing]:
        sys.exit(EXIT_MISSING)


def _show(console: PlainConsole, check: Check) -> None:
    console.print(f"{check.verdict:<8}", style=STYLE[check.verdict], end="")
    console.print(f"{check.name}: {check.found}", soft_wrap=True)
    if check.remedy:
        console.print(f"        → {check.remedy}", soft_wrap=True)
