"""The flows as Prefect's deployments: what its clock starts, and what its pages have a button and a form for."""

from __future__ import annotations

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from flows.archive import segment_archive
from flows.config.archive import ArchiveConfig
from flows.rerun import rerun
from flows.segment import segment

ONE_NIGHT = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
"""A night that is due while the last one is still running is left out: two would want the same devices."""


def deployments_of(config: ArchiveConfig, cron: str, timezone: str | None) -> list[RunnerDeployment]:
    """The archive's nights by the clock; one image, and single tiles, by hand."""
    name = config.out.name or "archive"
    kind = EntrypointType.MODULE_PATH
    clock = Cron(cron, timezone=timezone)
    parameters = {"config": config.model_dump(mode="json", exclude={"trust_code"})}
    found = (
        segment_archive.to_deployment(
            name, schedule=clock, parameters=parameters, concurrency_limit=ONE_NIGHT, entrypoint_type=kind
        ),
        segment.to_deployment(name, entrypoint_type=kind),
        rerun.to_deployment(name, entrypoint_type=kind),
    )
    return [each for each in found if isinstance(each, RunnerDeployment)]  # coroutines only where others are awaited
