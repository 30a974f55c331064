"""Failures of slides: which end the night, which are permanent, and the reason on one line."""

from __future__ import annotations

from pydantic import ValidationError

from flows.config.base import problem_in
from flows.errors import FlowError, PoolError
from tiling.errors import DiskError, PlanError, SourceError, StagingError, TilingError
from tiling.runs.ledger import TileRecord
from unet_core.errors import FootprintError, UnetCoreError

FATAL_ERRORS = (DiskError, StagingError, PoolError)
"""Errors that no slide would survive: they end the night, and the next night resumes."""

EXPECTED_ERRORS = (TilingError, UnetCoreError, FlowError, OSError, ValidationError)
"""Errors of the environment or the user; anything else is a bug, and is logged with its traceback."""


def is_permanent(error: BaseException) -> bool:
    """True if the same file would fail again, unlike after an error of a disk or a network."""
    if isinstance(error.__cause__, OSError):
        return False
    kinds = (SourceError, PlanError, FootprintError, ValidationError)
    return isinstance(error, kinds) or type(error) is FlowError


def is_unreadable(tile: TileRecord) -> bool:
    """True if a tile failed for its part of the image, as where a segment doesn't decode: most often it would again."""
    return (tile.reason or "").startswith(f"{SourceError.__name__}: ")


def reason_of(error: BaseException) -> str:
    """An error's message on one line."""
    if isinstance(error, ValidationError):
        return f"the manifest asks for {problem_in(error)}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
