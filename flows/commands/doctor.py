"""`overtile doctor`: what this machine, cluster or archive lacks, each line with its remedy."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from flows.commands.options import takes
from flows.commands.output import console, print_json
from flows.doctor.checks import Check, DoctorConfig, Level
from flows.doctor.examine import examine
from flows.lifecycle.environment import quiet_environment
from flows.reporting.escaping import PlainConsole, plain

EXIT_MISSING = 3

STYLE = {Level.ok: "green", Level.warning: "yellow", Level.missing: "bold red"}


NotifyOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL|COMMAND",
        help="Where a line goes if something is missing, as of overtile archive; OVERTILE_NOTIFY when not given.",
    ),
]


@takes(DoctorConfig)
def doctor_command(*, notify: NotifyOption = None, **asked: Any) -> None:
    """Say what this machine, cluster or archive lacks; exits 3 where something is missing."""
    config = DoctorConfig.model_validate(asked)
    quiet_environment()
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what it would warn of is a check here
    out = console()
    checks: list[Check] = []
    for check in examine(config):
        checks.append(check)
        _show(out, check)
    counts = Counter(check.verdict for check in checks)
    well, warnings, missing = (counts[verdict] for verdict in Level)
    out.print(f"{well} ok, {warnings} to think about, {missing} missing")
    print_json({"missing": missing, "warnings": warnings, "checks": [asdict(check) for check in checks]})
    if counts[Level.missing]:
        notify_missing(config, checks, notify)
        sys.exit(EXIT_MISSING)


def notify_missing(config: DoctorConfig, checks: Iterable[Check], to: str | None) -> None:
    """Send what is missing as one line, wherever lines go."""
    from flows.nightly.notification import Notification, send, wanted

    found = "; ".join(f"{check.name}: {check.found}" for check in checks if check.verdict is Level.missing)
    of = config.archive or config.out
    send(Notification(plain(f"overtile doctor{f' {of}' if of else ''}: {found}"), {"verdict": "missing"}), wanted(to))


def _show(out: PlainConsole, check: Check) -> None:
    out.print(f"{check.verdict:<8}", style=STYLE[check.verdict], end="")
    out.print(f"{check.name}: {check.found}", soft_wrap=True)
    if check.remedy:
        out.print(f"        → {check.remedy}", soft_wrap=True)
