"""`overtile segment`: one image into a run folder."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.commands.options import (
    takes,
)
from flows.commands.output import console, print_json
from flows.commands.run_and_report import run_and_report
from flows.config.run import SegmentConfig

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be computed, in how much memory and time; write nothing.")
]


@takes(SegmentConfig)
def segment_command(*, dry_run: DryRunOption = False, **asked: Any) -> None:
    """Segment one image; the same command again resumes. Exits 3 where tiles failed."""
    config = SegmentConfig.model_validate(asked)
    if not dry_run:
        run_and_report("segment", config)
        return
    from flows.commands.facts import forecast_facts
    from flows.run.forecast import foresee

    forecast = foresee(config)
    for line in forecast.lines():
        console().print(line, soft_wrap=True)
    print_json(forecast_facts(forecast))
