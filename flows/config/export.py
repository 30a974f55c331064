"""Options of an export."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt

from flows.config.option_types import Cli, LocalFile
from flows.config.run import FinishedRun
from flows.errors import ConfigError
from tiling.export.formats import AUTO, parse_formats


def _known(text: str) -> str:
    """Check a choice of formats.

    Raises:
        ConfigError: a name that is none. pydantic lets it through as it is: it names the option, not the field.
    """
    try:
        return parse_formats(text)
    except ValueError as error:
        raise ConfigError(f"--format: {error}") from error


def _joined(value: object) -> object:
    """Formats that were named one by one."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


Formats = Annotated[str, BeforeValidator(_joined), AfterValidator(_known)]
"""`none`, `auto`, or names of formats with commas in between."""


class ExportConfig(FinishedRun):
    """Export a finished run to formats that others open."""

    formats: Annotated[Formats, Cli("--format", metavar="FORMAT", is_repeatable=True)] = Field(
        default=AUTO, description="auto (what suits), or names of formats with commas in between."
    )
    again: Annotated[bool, Cli("--force", former="--again")] = Field(
        default=False, description="Write also what shows the mask already."
    )
    split: LocalFile | None = Field(
        default=None,
        description="Write also a COG for each file of a mosaic into this folder, on the part that it fills.",
    )
    threads: PositiveInt | None = Field(default=None, description="Threads of a writer; one per core when not given.")
