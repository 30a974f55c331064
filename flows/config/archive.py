"""Options of an archive's nights."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)
from pydantic.json_schema import SkipJsonSchema

from flows.config.base import ConfigBase
from flows.config.option_types import Cli, Output
from flows.config.run import Options, PixelOptions, SegmentConfig
from tiling.archives.listing import split_glob
from tiling.storage.place import Place, place_of

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)i?B?", re.IGNORECASE)
_NO_LABEL = frozenset(
    {
        "workers",
        "device",
        "export",
        "objects",
        "staging",
        "keep_staged",
        "ray_address",
        "trust_code",
        "model",
        "weights",
        "card",
    }
)
"""Options that change no label, or whose part in labels is in the model's digest."""

COLUMNS = (*(name for name in PixelOptions.model_fields if name != "region"), "core", "precision", "foreground")
"""Options that a manifest may give one slide: which of its pixels, and how they are segmented."""


def parse_duration(text: str) -> float:
    """Seconds of `5h`, `1h30m`, `90m`, `2d` or a plain number of seconds."""
    found = _DURATION.fullmatch(text.strip())
    if not found or not any(found.groups()):
        raise ValueError("a duration is written as 5h, 1h30m, 90m or 20s")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 86400.0 * days + 3600 * hours + 60 * minutes + seconds


def parse_size(text: str) -> int:
    """Bytes of `50GB`, `1.5T`, `800 MB` or a plain number of bytes; powers of 1000."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError("a size is written as 50GB, 1.5TB or 800MB")
    return int(float(found[1]) * 1000 ** (1 + "kmgt".index(found[2].lower()) if found[2] else 0))


def _as_duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _as_size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _without_credentials(source: str) -> str:
    """Refuse a URL with a user, a password or a signature here, before Prefect keeps it among a run's parameters.

    Raises:
        PlaceError: such a URL, which the message doesn't repeat.
    """
    if "://" in source:
        # `?` is one character of a glob, but none of a signature's query.
        place_of(source if "=" in source.partition("?")[2] else split_glob(source)[0])
    return source


def _absolute_source(source: str) -> str:
    """The same from any folder: the next night, or a rerun of it, may be started from another."""
    ending = "/" if source.endswith("/") and any(sign in source for sign in "*?[") else ""  # a glob of folders
    return source if "://" in source else f"{Path.cwd() / source}{ending}"


def _absolute_place(place: Place) -> Place:
    return Path.cwd() / place if isinstance(place, Path) else place


class SourceOptions(ConfigBase):
    """The source of slides, and the archive's folder."""

    source: Annotated[
        str,
        AfterValidator(_without_credentials),
        AfterValidator(_absolute_source),
        Cli(metavar="SOURCE", is_word=True),
    ] = Field(
        min_length=1,
        description="A folder, a glob such as slides/**/*.svs, a manifest (.csv), or a prefix in a bucket (s3://…).",
    )
    out: Annotated[Output, AfterValidator(_absolute_place), Cli(short="-o")] = Field(
        description="The archive's folder, a path or URL; the same folder again does what is new."
    )


class NightOptions(ConfigBase):
    """Options of a night's end, and of its order."""

    panel = "Nights"

    until: Annotated[str | None, Cli(metavar="HH:MM")] = Field(
        default=None,
        pattern=r"^([01]?\d|2[0-3]):[0-5]\d$",
        description="No further tile is begun after this time of day, such as 06:00; the next night resumes.",
    )
    budget: Annotated[PositiveFloat | None, BeforeValidator(_as_duration), Cli(metavar="TIME")] = Field(
        default=None, description="No further tile is started after so long, such as 5h or 90m."
    )
    first: Annotated[tuple[str, ...], Cli(metavar="GLOB", is_repeatable=True)] = Field(
        default=(), description="Slides whose names match one of these globs come first."
    )
    settle: Annotated[NonNegativeFloat, BeforeValidator(_as_duration), Cli(metavar="TIME", unit="s")] = Field(
        default=60.0, description="Files that changed less than so many seconds ago wait for the next night."
    )
    staging_budget: Annotated[PositiveInt | None, BeforeValidator(_as_size), Cli(metavar="SIZE")] = Field(
        default=None, description="What staged tiles may take on disk or in the bucket, such as 50GB."
    )
    keep_earlier: NonNegativeInt | None = Field(
        default=None,
        description="Of a slide whose content changed, keep so many runs of former contents; all when not given.",
    )
    reread: bool = Field(default=False, description="Read every slide again, whatever its size and time say.")
    failed_only: bool = Field(default=False, description="Only slides that failed, also those that would fail again.")
    strict: bool = Field(
        default=False, description="End with exit code 5 where slides of this night are to be looked at."
    )
    every: Annotated[PositiveFloat | None, BeforeValidator(_as_duration), Cli(metavar="TIME")] = Field(
        default=None, description="How often nights are due, such as 1d: the next one names those that didn't begin."
    )
    # In no form: whoever could fill it in would run a command of his own, and an address may be a secret.
    notify: Annotated[SkipJsonSchema[str | None], Cli(metavar="URL|COMMAND")] = Field(
        default=None,
        exclude=True,
        repr=False,
        description="Where a night's one line goes: a webhook's http(s) address, or a command that reads it from its "
        "input.",
    )


class ArchiveConfig(NightOptions, Options, SourceOptions):
    """Segment what is new or changed in an archive of slides."""

    @field_validator("foreground")
    @classmethod
    def _takes_one_foreground(cls, foreground: str) -> str:
        if foreground not in {"auto", "none"}:
            raise ValueError("a mask image belongs to one slide: name it in a manifest's column 'foreground'")
        return foreground

    def of_slide(self, place: Place, out: Place, model: str, overrides: Mapping[str, str]) -> SegmentConfig:
        """Options of one slide.

        Raises:
            ValidationError: the manifest asks for what there isn't.
        """
        common = {name: getattr(self, name) for name in Options.model_fields}
        bundle = {"model": model, "card": None, "weights": None}
        return SegmentConfig.model_validate({**common, **bundle, **overrides, "image": place, "out": out})

    def label_options(self) -> dict[str, Any]:
        """The options that can change a label, the model itself apart."""
        return {name: getattr(self, name) for name in Options.model_fields if name not in _NO_LABEL}

    def seconds_left(self, now: dt.datetime) -> float:
        """Seconds from a moment in local time to the night's end; infinite without an end."""
        return min(self.budget or float("inf"), self._seconds_to_hour(now))

    def end_named(self, now: dt.datetime) -> str:
        """Name what ends a night that begins at a moment in local time before its work is done."""
        return "its budget" if (self.budget or float("inf")) < self._seconds_to_hour(now) else "the time"

    def _seconds_to_hour(self, now: dt.datetime) -> float:
        if self.until is None:
            return float("inf")
        hour, minute = map(int, self.until.split(":"))
        return _seconds_until(hour, minute, now)


def _seconds_until(hour: int, minute: int, now: dt.datetime) -> float:
    """Seconds until clocks next show a time. They may be put forth or back in between, for a naive time is local."""
    today = now.replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None)
    shown: list[float] = []
    for days in (0, 1):
        first, again = ((today + dt.timedelta(days)).replace(fold=fold).timestamp() for fold in (0, 1))
        # What clocks leave out comes as late as it would have; of that, Python takes the second for the earlier.
        shown += [first, max(first, again)]
    return next(moment for moment in shown if moment > now.timestamp()) - now.timestamp()
