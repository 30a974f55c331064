"""`overtile verify`: checks a run's shards, pyramid and labels."""

from __future__ import annotations

import sys
from typing import Any

from flows.commands.exit_codes import EXIT_FAILED_TILES
from flows.commands.options import takes
from flows.commands.output import console, print_json
from flows.config.run import VerifyConfig
from flows.lifecycle.environment import quiet_environment


@takes(VerifyConfig)
def verify_command(**asked: Any) -> None:
    """Check a run: every shard, the pyramid, and samples computed again; exits 3 where it isn't sound."""
    config = VerifyConfig.model_validate(asked)
    quiet_environment()
    from tiling.export.foreign_files import sentence
    from tiling.runs.run import Run

    Run.open(config.run)  # refused before anything starts
    from flows.commands.facts import verification_facts
    from flows.commands.terminal import print_verification, run_with_progress

    out = console()
    verdict = run_with_progress(out, "verify", config)
    print_verification(out, verdict)
    if verdict.unfinished:
        out.print(verdict.unfinished, markup=False, highlight=False, soft_wrap=True)
    if message := sentence(verdict.unknown):
        out.print(message, markup=False, highlight=False, soft_wrap=True)
    print_json(verification_facts(verdict))
    if not verdict.is_sound:
        sys.exit(EXIT_FAILED_TILES)
