"""What a machine or a cluster lacks for a run: one line each, with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from flows.config import Output, Where


class Verdict(StrEnum):
    """How a check ended. A warning says what is slower or riskier than it need be; the run works all the same."""

    well = "ok"
    warning = "warning"
    missing = "missing"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a run needs: what was found, and what helps where it isn't well."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert (self.verdict is Verdict.well) == (not self.remedy)

    @classmethod
    def well(cls, name: str, found: str) -> Check:
        return cls(name, Verdict.well, found)

    @classmethod
    def warning(cls, name: str, found: str, remedy: str) -> Check:
        return cls(name, Verdict.warning, found, remedy)

    @classmethod
    def missing(cls, name: str, found: str, remedy: str) -> Check:
        return cls(name, Verdict.missing, found, remedy)


class DoctorConfig(BaseModel):
    """Look at this machine, and at whatever else is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Where | None = Field(default=None, description="An image that will be segmented: read, and planned for.")
    out: Output | None = Field(default=None, description="Where runs will be: written, read and timed.")
    model: str = Field(default="nuclei", description="The model of the plan.")
    series: str | None = Field(default=None, description="Which image of a file of several, by number or by name.")
    workers: PositiveInt | None = Field(default=None, description="Actors of the plan; one per core when not given.")
    ray_address: str | None = Field(default=None, description="A running Ray cluster: each of its nodes is looked at.")


def examine(config: DoctorConfig) -> Iterator[Check]:
    """Look at everything, the cheap things first."""
    from flows.doctor_cluster import look_at_prefect, look_at_ray
    from flows.doctor_machine import look_at_machine
    from flows.doctor_storage import look_at_image, look_at_storage

    yield from look_at_machine(config)
    if config.out is not None:
        yield from look_at_storage(config.out)
    if config.image is not None:
        yield from look_at_image(config)
    yield from look_at_prefect()
    if config.ray_address is not None:
        yield from look_at_ray(config.ray_address, config.out, config.image)
