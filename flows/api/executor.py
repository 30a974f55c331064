"""Choice of where a call from Python computes: in this process, or with Ray's actors in one of its own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import get_args

from flows.api.child_process import run_in_child_process
from flows.api.options import Executor
from flows.config.run import RerunConfig, SegmentConfig
from flows.errors import ConfigError
from flows.lifecycle.loading import uncollected
from flows.pool.free_memory import free_memory_bytes
from flows.reporting.progress import Listener, listener

LOCAL_BYTES = 10**9
"""Above it, Ray's actors are sooner done than this process would be, on two cores already."""

MEMORY_SHARE = 4
"""An array is at most a quarter of the free memory, which leaves room for the network and the caller."""


def choose_executor(asked: Executor, config: SegmentConfig | RerunConfig, array_bytes: int) -> Executor:
    """`local` or `ray`: of `auto`, local where nobody named workers or a cluster and the pixels fit this process.

    Raises:
        ConfigError: another executor, or a local one with options that only Ray has.
    """
    if asked not in get_args(Executor):
        raise ConfigError(f"executor: give one of {', '.join(get_args(Executor))}, not {asked!r}")
    is_spread = config.ray_address is not None or config.workers is not None
    if asked == "local" and is_spread:
        raise ConfigError("executor local computes in this process: leave out workers and ray_address, or give ray")
    if asked != "auto":
        return asked
    fits = array_bytes <= min(LOCAL_BYTES, free_memory_bytes() // MEMORY_SHARE)
    return "local" if fits and not is_spread else "ray"


def run_with(executor: Executor, config: SegmentConfig | RerunConfig, on_progress: Listener) -> None:
    """Run the configuration to its end; raises what the flow raises."""
    if executor == "ray":
        run_in_child_process("segment" if isinstance(config, SegmentConfig) else "rerun", config, on_progress)
        return
    with uncollected():
        from flows.run.local import rerun_here, segment_here

    with _reported_to(on_progress):
        if isinstance(config, SegmentConfig):
            segment_here(config)
        else:
            rerun_here(config)


@contextmanager
def _reported_to(on_progress: Listener) -> Generator[None]:
    token = listener.set(on_progress)
    try:
        yield
    finally:
        listener.reset(token)
