"""The errors that `flows` raises. Each message names the rule, the value and the remedy, on one line."""

from __future__ import annotations

from tiling.errors import (
    AnnotationError,
    ExportError,
    PlaceError,
    PlanError,
    RunError,
    SourceError,
    TilingError,
    WritingError,
)
from unet_core.errors import BundleError, FootprintError, TrainingError, UnetCoreError


class FlowError(Exception):
    """Root of every error that the package raises for a user's or the world's mistake."""


class StoppedError(FlowError):
    """Somebody asked the run to stop; `signal_number` says how, `outcome`, where it is known, what was done."""

    def __init__(self, message: str, signal_number: int, outcome: object = None) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.outcome = outcome


class NotStartedError(FlowError):
    """Nothing more is started: somebody asked to stop, or the night is over. It says nothing of what was to start."""


class ConfigError(FlowError):
    """A parameter that there isn't, or with a value that can't be."""


class IncompleteError(FlowError):
    """All work is finished, and some of it failed; `outcome` says which."""

    def __init__(self, message: str, outcome: object) -> None:
        super().__init__(message)
        self.outcome = outcome


class PoolError(FlowError):
    """Workers that can't be started or a cluster that can't be reached."""


class ServerStartError(PoolError):
    """A server of the command's own that doesn't start: the disk is full, say, or the machine too busy."""


class ClusterLostError(PoolError):
    """A cluster that was there and is gone."""


class UnrecordedError(ClusterLostError):
    """A Prefect server that was there and doesn't record that a flow begins; nothing has begun."""


ERRORS = (TilingError, UnetCoreError, FlowError, OSError)
"""Errors that are shown on one line; anything else is a bug and keeps its traceback."""

USAGE_ERRORS = (
    SourceError,
    AnnotationError,
    ExportError,
    PlaceError,
    PlanError,
    RunError,
    BundleError,
    FootprintError,
    TrainingError,
    FlowError,
)
"""What another command would avoid; the rest is the world's doing."""

ENVIRONMENT_ERRORS = (WritingError, ClusterLostError, ServerStartError)
"""Of those kinds what no other command would avoid either: a full disk, a lost cluster."""
