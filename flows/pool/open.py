"""The pool of one flow: the one that is starting already, or a new one."""

from __future__ import annotations

from contextvars import ContextVar

from flows.config.archive import ArchiveConfig
from flows.config.run import RerunConfig, SegmentConfig, VerifyConfig
from flows.pool.pool import Pool

started_pool: ContextVar[Pool | None] = ContextVar("started_pool", default=None)
"""A pool that is starting already: Ray, torch and Prefect's server load side by side, not one after another."""


def open_pool(config: SegmentConfig | RerunConfig | VerifyConfig | ArchiveConfig) -> Pool:
    """The pool that the command line began to start, or a new one."""
    return started_pool.get() or Pool(config.workers, config.ray_address, device=config.device)
