"""The Ray cluster that a pool's actors live in: attached to, or embedded in this process and gone with it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from importlib import import_module

import ray

from flows.config.run import Device
from flows.errors import FlowError, PoolError, ServerStartError
from flows.lifecycle.stopping import keep_sigterm, unheard_by_children
from flows.pool.actors import short_reason
from flows.pool.embedded import start_ray
from flows.pool.failure_handlers import install_failure_handlers
from flows.pool.head import Head
from flows.pool.ray_processes import EmbeddedRay


class Cluster:
    """The cluster's resources and whether it is alive; starts in a thread of its own where that is asked for.

    Args:
        workers: tile actors that an embedded cluster is made for; None for one per core.
        address: a running cluster's address; None starts an embedded one that listens on localhost only.
        device: on what tile actors compute; `auto` takes GPUs where there is one at the start.
        then: what is begun as soon as it has started, in the same thread.
    """

    def __init__(self, workers: int | None, address: str | None, device: Device, then: Callable[[], None]) -> None:
        self._workers, self._address, self._asked_device, self._then = workers, address, device, then
        self.device = "cpu"
        self.is_embedded = False
        self._head: Head | EmbeddedRay | None = None
        self._starting: threading.Thread | None = None
        self._started, self._ended = threading.Event(), threading.Event()
        self._failure: FlowError | None = None

    def begin(self) -> None:
        """Start in the background, while the caller still has other things to load; `enter` waits for it."""
        # Ray imports it in that thread and Prefect in this one, and its modules import each other in a circle: two
        # threads at once would find it half made.
        import_module("pydantic.v1.fields")
        self._starting = threading.Thread(target=self._start_and_stay, name="pool", daemon=True)
        self._starting.start()

    def wait_until_started(self) -> None:
        """Start it, or wait until it has started.

        Raises:
            FlowError: no cluster answers, or none can be started.
        """
        with keep_sigterm():
            if self._starting is None:
                self._start_safely()
            else:
                self._started.wait()
        if self._failure is not None:
            raise self._failure

    def shut_down(self) -> None:
        """Stop the embedded cluster."""
        if isinstance(self._head, EmbeddedRay):
            with keep_sigterm():  # at its end Ray takes away whatever handler is there
                self._head.end()
        self.is_embedded = False
        self._ended.set()

    def resources(self) -> Mapping[str, float]:
        """Resources of the cluster; asked only of a head that answers.

        Raises:
            ClusterLostError: it is gone.
        """
        self.expect_head()
        return ray.cluster_resources()

    def expect_head(self) -> None:
        """Wait for a head that is silent, for as long as it may be; raises ClusterLostError."""
        if self._head is not None:
            self._head.wait()

    def expect_own(self) -> None:
        """Raise ClusterLostError where Ray is this process's own and has died: that costs nothing to know."""
        if isinstance(self._head, EmbeddedRay):
            self._head.answers()

    def answers(self) -> bool:
        """True if the head is there now; raises ClusterLostError where it has been silent for too long."""
        return self._head is None or self._head.answers()

    @property
    def is_lost(self) -> bool:
        """True if the cluster is lost: any call to it would wait for ever."""
        return self._head is not None and self._head.is_lost

    def _start_and_stay(self) -> None:
        """Start, then keep this thread: Linux kills Ray's processes when the thread that made them ends."""
        self._start_safely()
        self._started.set()
        self._ended.wait()

    def _start_safely(self) -> None:
        try:
            self._start()
        except FlowError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 (a node that doesn't come up in time is just that to Ray)
            if self._address is None:
                self._failure = ServerStartError(
                    f"Ray can't be started on this machine ({short_reason(error)}): no worker can be given work; end "
                    f"what keeps the machine busy, see what overtile doctor says, then run the same command again"
                )
                return
            self._failure = PoolError(
                f"no Ray cluster answers at {self._address} ({short_reason(error)}); check the address and the token, "
                f"or leave --ray-address out for an embedded one"
            )

    def _start(self) -> None:
        if not ray.is_initialized():
            install_failure_handlers()
            if self._address is not None:
                with keep_sigterm():
                    ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
                self._head = Head(ray.get_runtime_context().gcs_address)
            else:
                with keep_sigterm(), unheard_by_children():
                    start_ray(self._workers)
                self.is_embedded, self._head = True, EmbeddedRay()
        seen = "cuda" if self.resources().get("GPU", 0) >= 1 else "cpu"
        self.device = seen if self._asked_device == "auto" else self._asked_device
        self._then()
