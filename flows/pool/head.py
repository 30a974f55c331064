"""The head of a Ray cluster that a driver is attached to, checked by its port."""

from __future__ import annotations

import socket
import time

from flows.errors import ClusterLostError

LOST_SECONDS = 20.0
"""Well before Ray itself ends the driver, without a word to anybody: a minute after its head is gone."""
CONNECT_SECONDS = 2.0


class Head:
    """Looked at by its port alone: a call through Ray would wait for it.

    Args:
        address: host and port of the cluster's control store.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address, self._host, self._port = address, host.strip("[]"), int(port)
        self._last_answer = time.monotonic()
        self.is_lost = False

    def answers(self) -> bool:
        """True if it is there now.

        Raises:
            ClusterLostError: it has not been for too long.
        """
        try:
            with socket.create_connection((self._host, self._port), CONNECT_SECONDS):
                self._last_answer = time.monotonic()
                return True
        except OSError as error:
            silent = time.monotonic() - self._last_answer
            if silent > LOST_SECONDS:
                self.is_lost = True
                raise ClusterLostError(
                    f"the head of the Ray cluster at {self._address} has not answered for {silent:.0f} s "
                    f"({error}): no actor can be given work; start it anew, then the same command resumes with the "
                    f"tiles that are missing"
                ) from error
            return False

    def wait(self) -> None:
        """Until it answers: before a call through Ray that needs it.

        Raises:
            ClusterLostError: it has not answered for too long.
        """
        while not self.answers():
            time.sleep(1)
