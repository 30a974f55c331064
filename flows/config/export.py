"""Options of an export."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from flows.config.run import Output
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


Formats = Annotated[str, AfterValidator(_known)]
"""`none`, `auto`, or names of formats with commas in between."""


class ExportConfig(BaseModel):
    """Export a finished run to formats that others open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: Output = Field(description="The run folder, a path or URL.")
    formats: Formats = Field(default=AUTO, description="auto, or names of formats with commas in between.")
    again: bool = Field(default=False, description="Write also what shows the mask already.")
    threads: PositiveInt | None = Field(default=None, description="That a writer may use; all cores when not given.")
