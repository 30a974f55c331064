"""A real S3 server in this process, and a faulty proxy in front of it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock

import boto3
from moto.server import ThreadedMotoServer

from tiling.storage.connection import forget_stores
from tiling.storage.object_path import ObjectPath

BUCKET = "slides"
SECRET = "canary-6f1d2c-of-a-secret-key"
TOKEN = "canary-77ab10-of-a-session-token"

Fault = str
"""`503`, `500`, `403`: answered instead of the server; `cut`: the connection ends inside the body; `mute`: no answer;
`lost`: the server is asked, its answer thrown away."""


def environment_of(endpoint: str) -> dict[str, str]:
    """The usual environment of an S3 client."""
    return {
        "AWS_ACCESS_KEY_ID": "AKIAOFTHETESTS",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }


@contextmanager
def connected_to(endpoint: str) -> Generator[None]:
    """This process's object stores lie behind another endpoint."""
    try:
        with mock.patch.dict(os.environ, environment_of(endpoint)):
            forget_stores()
            yield
    finally:
        forget_stores()


@contextmanager
def s3_server() -> Generator[str]:
    """A server with one bucket; gives its endpoint, to which this process is connected."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        with connected_to(endpoint):
            boto_client(endpoint).create_bucket(Bucket=BUCKET)
            yield endpoint
    finally:
        server.stop()


def boto_client(endpoint: str) -> Any:
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")


def place(name: str) -> ObjectPath:
    return ObjectPath.parse(f"s3://{BUCKET}/{name}")


def objects_below(folder: ObjectPath) -> dict[str, bytes]:
    """Every object's bytes by its name below the folder."""
    return {path.key[len(folder.key) + 1 :]: path.read_bytes() for path in folder.descendants()}


@dataclass
class Script:
    """Which requests go wrong. `choose` is asked with method, path and the number of times that this was asked for.

    `seen` has every request with its fault, `bodies` every answer's length. Puts pass one at a time: a real store
    tests a condition and writes in one step, the server of the tests in two.
    """

    choose: Callable[[str, str, int], Fault | None]
    counts: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    seen: list[tuple[str, str, Fault | None]] = field(default_factory=list[tuple[str, str, "Fault | None"]])
    bodies: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    writing: threading.Lock = field(default_factory=threading.Lock)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str, path: str) -> Fault | None:
        with self.lock:
            count = self.counts[method, path] = self.counts.get((method, path), 0) + 1
            fault = self.choose(method, path, count)
            self.seen.append((method, path, fault))
            return fault

    @property
    def faults(self) -> list[Fault]:
        return [fault for _, _, fault in self.seen if fault is not None]


@contextmanager
def faulty_proxy(endpoint: str, choose: Callable[[str, str, int], Fault | None]) -> Generator[Script]:
    """Stand between this process's object stores and the server."""
    script = Script(choose)
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"script": script, "behind": endpoint}))
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        with connected_to(f"http://127.0.0.1:{proxy.server_port}"):
            yield script
    finally:
        proxy.shutdown()
        proxy.server_close()


class _Handler(BaseHTTPRequestHandler):
    script: Script
    behind: str
    protocol_version = "HTTP/1.1"

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.script.next(self.command, self.path.partition("?")[0])
        if fault is not None and fault.isdecimal():
            self._answer(int(fault), {}, _ERRORS.get(fault, b""))
            return
        if fault == "mute":
            self._hang()
            return
        status, headers, data = self._ask(body)
        if fault == "lost":
            self._end()
            return
        self._answer(status, headers, data, cut=fault == "cut")

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = do_any  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        with self.script.writing if self.command == "PUT" else nullcontext():
            return self._forward(body)

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self.behind.removeprefix("http://"), timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), data

    def _answer(self, status: int, headers: dict[str, str], data: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        kept = {k: v for k, v in headers.items() if k.lower() not in {"connection", "transfer-encoding"}}
        if self.command != "HEAD" and status not in {204, 304}:
            kept = {k: v for k, v in kept.items() if k.lower() != "content-length"} | {"Content-Length": str(len(data))}
        for name, value in kept.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.script.bodies.append((self.command, self.path, len(data)))
        with suppress(BrokenPipeError):  # a client may have gone
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._end()

    def _hang(self) -> None:
        """Say nothing until the client goes."""
        self.connection.settimeout(20)
        with suppress(OSError):
            self.connection.recv(1)
        self._end()

    def _end(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)


_ERRORS = {
    "503": b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
    "500": b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>",
    "403": b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
}
