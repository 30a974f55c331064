"""A flow of one run, started from the command line: checked early, shown while it works, summarised at its end."""

from __future__ import annotations

import sys

from flows.commands.exit_codes import EXIT_FAILED_TILES
from flows.commands.output import console, print_json
from flows.config.run import RerunConfig, SegmentConfig
from flows.lifecycle.environment import quiet_environment


def run_and_report(name: str, config: SegmentConfig | RerunConfig) -> None:
    """Run a flow with live progress; a run with failed tiles ends with an exit code of its own."""
    quiet_environment()
    # The flow refuses the same: here it is before Ray and Prefect have begun to start.
    from tiling.runs.run import Run

    if isinstance(config, SegmentConfig):
        Run.expect_room(config.out)
    else:
        Run.open(config.run)
    from flows.commands.facts import outcome_facts
    from flows.commands.terminal import print_outcome, run_with_progress

    out = console()
    outcome = run_with_progress(out, name, config)
    print_outcome(out, outcome)
    print_json(outcome_facts(outcome))
    if not outcome.complete:
        sys.exit(EXIT_FAILED_TILES)
