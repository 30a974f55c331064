"""Checks and how they end; options of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from flows.config.run import Output, Where


class Level(StrEnum):
    """Level of a check. A warning says what is slower or riskier than it need be; the run works all the same."""

    ok = "ok"
    warning = "warning"
    missing = "missing"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a run needs: what was found, and what helps where it isn't well."""

    name: str
    verdict: Level
    found: str
    remedy: str = ""

    def __post_init__(self) -> None:
        assert (self.verdict is Level.ok) == (not self.remedy)

    @classmethod
    def ok(cls, name: str, found: str) -> Check:
        return cls(name, Level.ok, found)

    @classmethod
    def warning(cls, name: str, found: str, remedy: str) -> Check:
        return cls(name, Level.warning, found, remedy)

    @classmethod
    def missing(cls, name: str, found: str, remedy: str) -> Check:
        return cls(name, Level.missing, found, remedy)


class DoctorConfig(BaseModel):
    """Look at this machine, and at whatever else is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Where | None = Field(default=None, description="An image that will be segmented: read, and planned for.")
    out: Output | None = Field(default=None, description="Where runs will be: written, read and timed.")
    model: str = Field(default="nuclei", description="The model of the plan.")
    workers: PositiveInt | None = Field(default=None, description="Actors of the plan; one per core when not given.")
    ray_address: str | None = Field(default=None, description="A running Ray cluster: each of its nodes is looked at.")
