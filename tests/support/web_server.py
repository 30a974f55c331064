"""A real web server of a folder's files, as image archives have it: ranges, strong tags, and a record of requests."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Web:
    """A server's URL, without a slash at its end, and what it was asked for: method and path."""

    url: str
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


@contextmanager
def serving(folder: Path) -> Generator[Web]:
    """Serve a folder's files at a free port of this machine."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append((self.command, path))
            file = (folder / path.lstrip("/")).resolve()
            if not file.is_relative_to(folder.resolve()) or not file.is_file():
                self._send(404, b"<!DOCTYPE html><p>there is no such page</p>", "text/html")
                return
            data, facts = file.read_bytes(), file.stat()
            tag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
            changed = self.date_time_string(int(facts.st_mtime))
            if self.headers.get("If-Match") not in {None, "*", tag}:
                self._send(412, b"", "text/plain")
                return
            wanted = self.headers.get("Range", "")
            if not wanted.startswith("bytes="):
                self._send(200, data, _kind(file), tag, changed)
                return
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data)) + 1, len(data))
            self._send(206, data[start:stop], _kind(file), tag, changed, f"bytes {start}-{stop - 1}/{len(data)}")

        def _send(
            self, code: int, data: bytes, kind: str, tag: str | None = None, changed: str = "", part: str | None = None
        ) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Accept-Ranges", "bytes")
            if tag is not None:
                self.send_header("ETag", tag)
                self.send_header("Last-Modified", changed)
            if part is not None:
                self.send_header("Content-Range", part)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as the library calls it
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Web(f"http://127.0.0.1:{server.server_address[1]}", asked)
    finally:
        server.shutdown()
        server.server_close()


def _kind(file: Path) -> str:
    return {".json": "application/geo+json", ".html": "text/html"}.get(file.suffix, "image/tiff")
