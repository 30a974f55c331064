"""The flows as Prefect's deployments: what its clock starts, and what its pages have a button and a form for."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from flows.archive import segment_archive
from flows.config.archive import ArchiveConfig
from flows.config.run import Options
from flows.rerun import rerun
from flows.segment import segment

ONE_NIGHT = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
"""A night that is due while the last one is still running is left out: two would want the same devices."""


def deployments_of(config: ArchiveConfig, cron: str, timezone: str | None) -> list[RunnerDeployment]:
    """The archive's nights by the clock; one image, and single tiles, by hand, in forms with the archive's options."""
    name = config.out.name or "archive"
    kind = EntrypointType.MODULE_PATH
    clock = Cron(cron, timezone=timezone)
    parameters = {"config": config.model_dump(mode="json", exclude={"trust_code"})}
    found = (
        segment_archive.to_deployment(
            f"{name}-nights", schedule=clock, parameters=parameters, concurrency_limit=ONE_NIGHT, entrypoint_type=kind
        ),
        segment.to_deployment(f"{name}-one-image", parameters=_like(config), entrypoint_type=kind),
        rerun.to_deployment(
            f"{name}-single-tiles", parameters={"config": {"run": f"{config.out}/slides/"}}, entrypoint_type=kind
        ),
    )
    return [each for each in found if isinstance(each, RunnerDeployment)]  # coroutines only where others are awaited


def _like(config: ArchiveConfig) -> dict[str, Any]:
    """Parameters of one image as the archive's slides are segmented; which image, and where, is left to the form."""
    options = config.model_dump(mode="json", include=set(Options.model_fields) - {"trust_code"})
    return {"config": {**options, "out": f"{config.out}/by-hand/"}}
