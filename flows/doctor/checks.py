"""Checks and how they end; options of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field, PositiveInt

from flows.config.base import ConfigBase
from flows.config.option_types import Cli, Output, Where


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


class DoctorConfig(ConfigBase):
    """Check this machine, and whatever else is named."""

    image: Where | None = Field(
        default=None, description="An image to read and plan for: memory, space, reading speed."
    )
    out: Annotated[Output | None, Cli(short="-o")] = Field(
        default=None, description="Where runs will be, a path or URL: written, read and timed."
    )
    model: Annotated[str, Cli(short="-m", metavar="MODEL")] = Field(
        default="nuclei",
        description="The model of the plan: a shipped one's name, a bundle's folder, or any that --model of segment "
        "takes without more options (hf:OWNER/NAME@COMMIT).",
    )
    series: Annotated[str | None, Cli(metavar="N|NAME")] = Field(
        default=None, description="Which image of a file of several, by number from 0 or by name."
    )
    workers: PositiveInt | None = Field(default=None, description="Actors of the plan; one per core when not given.")
    archive: Output | None = Field(
        default=None,
        description="An archive's folder: whether its last night died and whether one is overdue. Alone, nothing else "
        "is looked at.",
    )
    ray_address: Annotated[str | None, Cli(metavar="HOST:PORT")] = Field(
        default=None, description="A running Ray cluster, whose nodes are asked too."
    )
