"""Opener of addresses whose answers keep a pace, headers and redirects included. Never imports torch.

A timeout of the standard library is of each wait for bytes alone: a server that sends one now and then is never too
slow for it.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
import urllib.request
from dataclasses import dataclass
from functools import partial
from typing import Any

WAIT_SECONDS = 30.0
"""The longest that nothing may come."""


class TooSlowError(OSError):
    """An answer that falls behind its pace."""


@dataclass(slots=True)
class Pace:
    """The time that an answer has: some seconds, and more for all that came of it.

    >>> pace = Pace(began=0.0, grace_seconds=60.0, bytes_per_second=1000.0)
    >>> pace.received += 5000
    >>> pace.left(50.0)
    15.0
    """

    began: float
    grace_seconds: float
    bytes_per_second: float
    received: int = 0

    def left(self, now: float) -> float:
        """Seconds from now until the answer is too slow."""
        return self.began + self.grace_seconds + self.received / self.bytes_per_second - now


class _PacedBytes(io.RawIOBase):
    """A connection's bytes, awaited as long as they keep the pace."""

    def __init__(self, source: io.RawIOBase, sock: socket.socket, pace: Pace) -> None:
        self._source, self._sock, self._pace = source, sock, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        left = self._pace.left(time.monotonic())
        if left <= 0:
            raise TooSlowError
        self._sock.settimeout(min(left, WAIT_SECONDS))
        try:
            count = self._source.readinto(buffer)
        except TimeoutError as error:
            if left <= WAIT_SECONDS:
                raise TooSlowError from error
            raise
        self._pace.received += count or 0
        return count

    def close(self) -> None:
        self._source.close()
        super().close()


class _PacedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, pace: Pace, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_PacedBytes(self.fp.detach(), sock, pace))


class _PacedHandler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Both kinds of connection, with responses that keep the pace."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._response = partial(_PacedResponse, pace=pace)

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection(http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection(http.client.HTTPSConnection), req)

    def _connection(self, kind: type[http.client.HTTPConnection]) -> Any:
        def connect(*args: Any, **options: Any) -> http.client.HTTPConnection:
            connection = kind(*args, **options)
            setattr(connection, "response_class", self._response)  # noqa: B010 (typed as a class)
            return connection

        return connect


def paced_opener(
    grace_seconds: float, bytes_per_second: float, *handlers: urllib.request.BaseHandler
) -> urllib.request.OpenerDirector:
    """An opener for one answer, whose pace begins now; opening and reading it raise TooSlowError, as it is or as the
    reason of an URLError."""
    pace = Pace(time.monotonic(), grace_seconds, bytes_per_second)
    return urllib.request.build_opener(_PacedHandler(pace), *handlers)
