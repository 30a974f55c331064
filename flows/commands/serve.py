"""`overtile serve`: an archive's nights on one machine, by Prefect's clock, with its pages to look at and press."""

from __future__ import annotations

import datetime as dt
import os
from contextlib import ExitStack
from itertools import pairwise
from typing import Annotated, Any, cast

import typer

from flows.commands.archive import last_config
from flows.commands.options import takes
from flows.commands.output import console
from flows.config.archive import ArchiveConfig
from flows.config.deployed import serve_only
from flows.errors import ConfigError
from flows.lifecycle.environment import expect_cluster, quiet_environment
from flows.lifecycle.prefect_server import EmbeddedServer
from flows.lifecycle.reachable import expect_prefect

UI_PORT = 4200
NIGHTS_COMPARED = 64
"""Of a clock's next nights, to find the longest pause between two."""

ArchiveArgument = Annotated[
    str, typer.Argument(metavar="ARCHIVE", help="The folder of an archive that has seen a night, a path or URL.")
]
CronOption = Annotated[
    str, typer.Option(metavar="CRON", help="When nights begin: '0 1 * * *' is one o'clock every night.")
]
ZoneOption = Annotated[
    str | None, typer.Option("--timezone", metavar="ZONE", help="Of the clock, such as Europe/Berlin; UTC by default.")
]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Where Prefect's pages are, on localhost.")]


@takes(ArchiveConfig, only=["until", "budget", "notify"])
def serve_command(
    *,
    out_folder: ArchiveArgument,
    cron: CronOption = "0 1 * * *",
    timezone: ZoneOption = None,
    port: PortOption = UI_PORT,
    **changed: Any,
) -> None:
    """Begin an archive's nights by a clock on this machine, with the options of its last one, until stopped."""
    expect_cluster()
    config = last_config(out_folder, changed)
    quiet_environment("INFO")
    out = console()
    server = EmbeddedServer(port).listen() if EmbeddedServer.is_wanted() else None
    _check_clock(cron, timezone)
    config = config.model_copy(update={"every": _longest_pause(cron)})
    serve_only(config)
    with ExitStack() as stack:
        if server is not None:
            out.print("starting Prefect's server ...")
            stack.enter_context(server.begin())
        else:
            expect_prefect()
        from flows.deployments import deployments_of
        from flows.lifecycle.serving_end import serve_until_stopped

        out.print(f"archive {config.out}: nights at '{cron}' ({timezone or 'UTC'}), Ctrl-C stops", soft_wrap=True)
        if server is None:
            out.print(f"pages:   {os.environ['PREFECT_API_URL'].removesuffix('/api')}", soft_wrap=True)
        else:
            out.print(f"pages:   {server.link}", soft_wrap=True)
            out.print(f"         opens them once; the next link is in {server.link_file}", soft_wrap=True)
        serve_until_stopped(*deployments_of(config, cron, timezone))
        out.print("stopped; the same command holds the nights again")


def _longest_pause(cron: str) -> float:
    """Seconds between two nights at the most, as over a weekend: after a longer one, a night didn't begin."""
    from prefect._vendor.croniter import croniter  # pyright: ignore[reportPrivateUsage]

    moments = croniter(cron, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    times = [cast("dt.datetime", moments.get_next(dt.datetime)) for _ in range(NIGHTS_COMPARED)]
    return max((later - earlier).total_seconds() for earlier, later in pairwise(times))


def _check_clock(cron: str, timezone: str | None) -> None:
    """Check a clock as Prefect itself would, but only once its server runs, or never. The server must be named by now.

    Raises:
        ConfigError: a time that never comes, or no timezone.
    """
    from prefect._vendor.croniter import croniter  # pyright: ignore[reportPrivateUsage]
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron)
        croniter(cron).get_next()
    except ValueError as error:
        raise ConfigError(
            f"--cron names times that come, and '{cron}' names none: no night would begin; give minute, hour, day, "
            f"month and weekday, as in '0 1 * * *'"
        ) from error
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValueError as error:
        raise ConfigError(
            f"--timezone is a name of the IANA's list, and '{timezone}' is none: nights would begin at other times; "
            f"give one such as Europe/Berlin"
        ) from error
