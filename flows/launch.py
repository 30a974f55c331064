"""A flow with all that it needs around it: Prefect's server where none is configured, and Ray."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType
from typing import Any

from flows.config.archive import ArchiveConfig
from flows.config.base import ConfigBase
from flows.config.run import RerunConfig, SegmentConfig, VerifyConfig
from flows.errors import IncompleteError, UnrecordedError
from flows.lifecycle.cancellation import cancellable
from flows.lifecycle.environment import expect_cluster, has_cluster
from flows.lifecycle.held_signals import held_signals
from flows.lifecycle.loading import uncollected
from flows.lifecycle.prefect_server import EmbeddedServer
from flows.lifecycle.reachable import expect_prefect
from flows.lifecycle.stopping import stopped_as_cancelled
from flows.reporting.progress import Listener, listener


def run_flow(name: str, config: ConfigBase, on_progress: Listener) -> Any:
    """Run the flow of that name, with what it needs around it, and return what it returns.

    Prefect's server, Ray and torch take seconds each to load: they load side by side.
    """
    listener.set(on_progress)
    if not has_cluster():
        return _run_here(config)
    server = EmbeddedServer().begin() if EmbeddedServer.is_wanted() else None
    if server is None:
        expect_prefect()
    with uncollected(), held_signals():
        flows = _load_flows(config)
    with server or nullcontext():
        return run_recorded(getattr(flows, name), config, is_reachable=server is None)


def run_recorded(flow: Callable[[Any], Any], config: Any, *, is_reachable: bool) -> Any:
    """Result of a flow that a Prefect server records, also where some of it failed; a cancel there stops it.

    Args:
        is_reachable: False of a server that only this command has the password of.

    Raises:
        StoppedError: it was cancelled.
        UnrecordedError: the server doesn't record it.
    """
    from prefect.exceptions import CancelledRun

    with cancellable(is_reachable=is_reachable) as cancellation:
        try:
            return flow(config)
        except IncompleteError as error:
            return error.outcome
        except CancelledRun as error:
            raise cancellation.stopped or stopped_as_cancelled() from error
        except RuntimeError as error:
            if not str(error).startswith("Failed to reach API"):  # Prefect has no kind of its own for it
                raise
            cause = " ".join(str(error.__cause__ or "no answer").split())[:200]
            raise UnrecordedError(
                f"{error} ({cause}): no flow could be recorded, and nothing has begun; look at the variables PREFECT_*"
                f", then run the same command again"
            ) from error


def _run_here(config: ConfigBase) -> Any:
    """Segment or rerun in this process.

    Raises:
        PoolError: what only Ray and Prefect do was asked for.
    """
    assert isinstance(config, SegmentConfig | RerunConfig | VerifyConfig | ArchiveConfig)
    if (
        not isinstance(config, SegmentConfig | RerunConfig)
        or config.workers is not None
        or config.ray_address is not None
    ):
        expect_cluster()
        raise AssertionError("there is none here")
    with uncollected():
        from flows.run.local import rerun_here, segment_here

    return segment_here(config) if isinstance(config, SegmentConfig) else rerun_here(config)


def _load_flows(config: ConfigBase) -> ModuleType:
    """Begin to start Ray, then load the flows and torch meanwhile."""
    from flows.pool.open import started_pool
    from flows.pool.pool import Pool

    assert isinstance(config, SegmentConfig | RerunConfig | VerifyConfig | ArchiveConfig)
    pool = Pool(config.workers, config.ray_address, device=config.device).begin()
    started_pool.set(pool)
    from unet_core.inference.device import warm_up

    if isinstance(config, RerunConfig):
        from flows import rerun as flows
    elif isinstance(config, VerifyConfig):
        from flows import verify as flows
    elif isinstance(config, ArchiveConfig):
        from flows import archive as flows
    else:
        from flows import segment as flows
    warm_up()
    return flows
