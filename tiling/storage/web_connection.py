"""Connection to a web server: kept for the next request, through the environment's proxy, with bounded time."""

from __future__ import annotations

import base64
import http.client
import io
import os
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

from tiling.errors import AccessError
from tiling.storage import connection
from tiling.storage.public_address import connect_to_public

CONNECT_SECONDS = 10.0
MOST_IDLE = 8
_TRUSTED = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_ERROR_BYTES = 64 * 1024
"""What is read of a page that says why there is no answer, so that its connection can be used again."""


class TooLongError(OSError):
    """An answer of more bytes than were asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a request: its status, its headers by names in lower case, its bytes."""

    status: int
    reason: str
    headers: Mapping[str, str]
    data: bytes


def ask(method: str, url: str, headers: Mapping[str, str], most_bytes: int, *, public_only: bool = False) -> Answer:
    """Send a request once; redirects are answers too.

    With `public_only` the server is one that another led to. A proxy of the environment looks up names itself.

    Raises:
        OSError, http.client.HTTPException: there is no answer, it ends in between, or it takes too long.
        TooLongError: it has more bytes than `most_bytes`.
        NotPublicError: with `public_only`, its name stands for an address that is not public; nobody is asked.
    """
    parts = urlsplit(url)
    kept = f"{parts.scheme}://{parts.netloc}", public_only
    opened = _pool(os.getpid()).take(kept) or _connection(parts, public_only=public_only)
    try:
        answer = _answer(opened, method, parts, headers, most_bytes)
    except BaseException:
        opened.close()
        raise
    if opened.sock is not None:
        _pool(os.getpid()).put(kept, opened)
    return answer


def _answer(
    opened: _Connection, method: str, parts: SplitResult, headers: Mapping[str, str], most_bytes: int
) -> Answer:
    until = time.monotonic() + 10 * connection.SILENCE_SECONDS
    path = parts._replace(scheme="", netloc="").geturl() or "/"
    opened.begin(until)
    sent = {"User-Agent": "overtile", "Accept": "*/*", **(opened.credentials or {}), **headers}
    opened.request(method, path if opened.credentials is None else parts.geturl(), headers=sent)
    response = opened.getresponse()
    facts = {name.lower(): value for name, value in response.getheaders()}
    is_wanted = 200 <= response.status < 300
    data = _body(response, most_bytes) if is_wanted and method != "HEAD" else response.read(_ERROR_BYTES)
    if not response.isclosed():
        opened.close()  # what is left of it would be taken for the next answer
    return Answer(response.status, response.reason, facts, data)


def _body(response: http.client.HTTPResponse, most_bytes: int) -> bytes:
    announced = response.length
    if announced is not None and announced > most_bytes:
        raise TooLongError(f"{announced} bytes")
    data = response.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise TooLongError(f"more than {most_bytes} bytes")
    if announced is not None and len(data) < announced:
        raise ConnectionResetError(f"the connection ended after {len(data)} of {announced} bytes")
    return data


class _TimedBytes(io.RawIOBase):
    """Bytes of a connection, awaited until a time and none longer than a server may be silent."""

    def __init__(self, source: io.RawIOBase, timed: _TimedSocket) -> None:
        self._source, self._timed = source, timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._timed.await_until()
        return self._source.readinto(buffer)

    def close(self) -> None:
        self._source.close()
        super().close()


class _TimedSocket:
    """A socket as `http.client` uses it, with a time until which all of an answer has come."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self.until = sock, 0.0

    def await_until(self) -> None:
        """Bound the next wait; the standard library's own timeout begins anew with every byte."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self._sock.settimeout(min(left, connection.SILENCE_SECONDS))

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedBytes(cast("Any", self._sock).makefile(mode, buffering=0), self))

    def sendall(self, data: bytes) -> None:
        self.await_until()
        self._sock.sendall(data)

    def is_quiet(self) -> bool:
        """True if nothing has come, not even an end, since the last answer."""
        waiting = select.poll()
        waiting.register(self._sock.fileno(), select.POLLIN)
        return not waiting.poll(0)

    def close(self) -> None:
        self._sock.close()


class _Connection(http.client.HTTPConnection):
    """Connection to a server, or to a proxy that relays requests or carries them through."""

    credentials: Mapping[str, str] | None = None
    """Headers for a proxy that relays requests; None of a server."""
    _create_connection: Callable[..., socket.socket]
    _timed: _TimedSocket | None = None
    _until = 0.0

    def connect(self) -> None:
        super().connect()
        self._timed = _TimedSocket(cast("socket.socket", self.sock))
        self._timed.until = self._until
        self.sock = cast("Any", self._timed)

    def expect_public(self) -> None:
        """Connect to a public server alone; the library's one hook for who connects leaves TLS the server's name."""
        self._create_connection = connect_to_public

    def begin(self, until: float) -> None:
        """Give the next answer until a time."""
        self._until = until
        if self._timed is not None:
            self._timed.until = until

    def is_fresh(self) -> bool:
        """True if it can be used for another request."""
        return self.sock is not None and self._timed is not None and self._timed.is_quiet()


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    """The same by TLS."""


class _Pool:
    """Connections that wait for the next request. Safe to use from several threads."""

    def __init__(self) -> None:
        self._idle: defaultdict[tuple[str, bool], list[_Connection]] = defaultdict(list)
        self._lock = threading.Lock()

    def take(self, kept: tuple[str, bool]) -> _Connection | None:
        while True:
            with self._lock:
                if not self._idle[kept]:
                    return None
                opened = self._idle[kept].pop()
            if opened.is_fresh():
                return opened
            opened.close()

    def put(self, kept: tuple[str, bool], opened: _Connection) -> None:
        with self._lock:
            if len(self._idle[kept]) < MOST_IDLE:
                self._idle[kept].append(opened)
                return
        opened.close()


@lru_cache(maxsize=2)
def _pool(process: int) -> _Pool:
    """The connections of a process; a fork has its own."""
    return _Pool()


@lru_cache(maxsize=4)
def _tls(*trusted: str | None) -> ssl.SSLContext:
    """Certificates that are trusted, as the environment names them."""
    return ssl.create_default_context()


def _connection(parts: SplitResult, *, public_only: bool) -> _Connection:
    """A new connection to a server, through the proxy that the environment names for it if there is one."""
    is_secure, host, proxy = parts.scheme == "https", parts.hostname or "", _proxy(parts)
    port = parts.port or (443 if is_secure else 80)
    at = (host, port) if proxy is None else (proxy.hostname or "", proxy.port or 80)
    if is_secure:
        opened = _SecureConnection(*at, timeout=CONNECT_SECONDS, context=_tls(*map(os.environ.get, _TRUSTED)))
        if proxy is not None:
            opened.set_tunnel(host, port, _credentials(proxy))
    else:
        opened = _Connection(*at, timeout=CONNECT_SECONDS)
        opened.credentials = None if proxy is None else _credentials(proxy)
    if public_only and proxy is None:
        opened.expect_public()
    return opened


def _proxy(parts: SplitResult) -> SplitResult | None:
    named = urllib.request.getproxies()
    found = named.get(parts.scheme) or named.get("all")
    if not found or urllib.request.proxy_bypass(parts.netloc):
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme not in {"http", "https"}:
        raise AccessError(
            f"{parts.hostname}: the environment names a proxy of {proxy.scheme}://, and one of http:// is spoken to; "
            f"set {parts.scheme}_proxy, or name the server in no_proxy"
        )
    return proxy


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
