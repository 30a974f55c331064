"""A real web server of a folder's files, as image archives have it: ranges, strong tags, and a record of requests."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Web:
    """A server's URL, without a slash at its end, and what it was asked for: method and path.

    redirects: where a path leads, by the method or for all (`"GET /a.tif"`, `"/a.tif"`). made: paths whose content an
    API makes when it is asked: no HEAD, no length, no tag, no ranges.
    """

    url: str
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    redirects: dict[str, str] = field(default_factory=dict[str, str])
    made: set[str] = field(default_factory=set[str])


@contextmanager
def serving(folder: Path, tls: ssl.SSLContext | None = None) -> Generator[Web]:
    """Serve a folder's files at a free port of this machine, by https where it has a certificate."""
    web = Web("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            web.asked.append((self.command, path))
            leads = web.redirects.get(f"{self.command} {path}", web.redirects.get(path))
            if leads is not None:
                self._send(302, b"moved", "text/plain", location=leads)
                return
            file = (folder / path.lstrip("/")).resolve()
            if not file.is_relative_to(folder.resolve()) or not file.is_file():
                self._send(404, b"<!DOCTYPE html><p>there is no such page</p>", "text/html")
                return
            data, facts = file.read_bytes(), file.stat()
            if path in web.made:
                self._make(data)
                return
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
            start, stop = int(first or 0), min(int(last or len(data)) + 1, len(data))
            if not first:
                start, stop = max(0, len(data) - int(last)), len(data)
            self._send(206, data[start:stop], _kind(file), tag, changed, f"bytes {start}-{stop - 1}/{len(data)}")

        def _make(self, data: bytes) -> None:
            if self.command == "HEAD":
                self._send(405, b"", "text/plain")
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/geo+json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (*filter(None, (data[:100], data[100:])), b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

        def _send(
            self,
            code: int,
            data: bytes,
            kind: str,
            tag: str | None = None,
            changed: str = "",
            part: str | None = None,
            location: str | None = None,
        ) -> None:
            self.send_response(code)
            if location is not None:
                self.send_header("Location", location)
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
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield replace(web, url=f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()


def _kind(file: Path) -> str:
    return {".json": "application/geo+json", ".html": "text/html"}.get(file.suffix, "image/tiff")
