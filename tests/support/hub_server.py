"""Stand-in of the Hugging Face Hub's API over HTTP: repositories of one commit, small files in git, large ones beside.

It answers as the hub does: lists of files with git's blob ids and SHA-256, redirects to where large files lie, 401 for
what is not public, and the header that says why. Of one kind of answer it can be made to drip without an end.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_FROM = 1000
"""Bytes from which a file is kept outside of git here; the hub has another limit, and the same two ways."""


@dataclass
class Hub:
    """Repositories by `owner/name`, each with the files of its one commit, and the paths that were asked for."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])
    asked: list[str] = field(default_factory=list[str])
    damaged: bool = False
    drips: Literal["nothing", "head", "listing", "file"] = "nothing"
    address: str = ""

    def add(self, repository: str, folder: Path) -> str:
        """Take the files of a folder in; returns the model's name with its commit."""
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        self.repositories[repository] = {str(path.relative_to(folder)): path.read_bytes() for path in files}
        return f"hf:{repository}@{COMMIT}"

    def listing(self, repository: str) -> dict[str, Any]:
        return {
            "id": repository,
            "sha": COMMIT,
            "siblings": [listed(*each) for each in self.repositories[repository].items()],
        }


def listed(name: str, content: bytes) -> dict[str, Any]:
    large = {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}}
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return {"rfilename": name, "size": len(content), "blobId": blob, **(large if len(content) >= LARGE_FROM else {})}


@contextmanager
def hub_server() -> Generator[Hub]:
    """The hub, until the context ends; `HF_ENDPOINT` is to name its address."""
    hub, ended = Hub(), threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(path)
            parts = path.strip("/").split("/")
            is_listing = parts[:2] == ["api", "models"]
            if hub.drips == "head":
                self.drip(b"HTTP/1.0 200 OK\r\nContent-Type: ")
            elif hub.drips == ("listing" if is_listing else "file"):
                self.drip(b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            elif is_listing:
                self.about("/".join(parts[2:4]), parts[5])
            elif parts[0] == "large":
                self.give(hub.repositories["/".join(parts[1:3])]["/".join(parts[3:])])
            else:
                self.resolve("/".join(parts[:2]), "/".join(parts[4:]))

        def about(self, repository: str, revision: str) -> None:
            if repository not in hub.repositories:
                self.refuse(401, "RepoNotFound")
            elif revision not in {COMMIT, "main"}:
                self.refuse(404, "RevisionNotFound")
            else:
                self.give(json.dumps(hub.listing(repository)).encode())

        def resolve(self, repository: str, name: str) -> None:
            content = hub.repositories[repository][name]
            if len(content) < LARGE_FROM:
                self.give(content)
                return
            self.send_response(302)
            self.send_header("Location", f"{hub.address}/large/{repository}/{name}")
            self.end_headers()

        def drip(self, begun: bytes) -> None:
            """One byte after another, until nobody takes them any more."""
            with suppress(OSError):
                self.wfile.write(begun)
                while not ended.wait(0.005):
                    self.wfile.write(b" ")

        def give(self, content: bytes) -> None:
            if hub.damaged and len(content) >= LARGE_FROM:
                content = bytes([content[0] ^ 1]) + content[1:]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def refuse(self, code: int, why: str) -> None:
            self.send_response(code)
            self.send_header("X-Error-Code", why)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    try:
        yield hub
    finally:
        ended.set()
        server.shutdown()
        serving.join()
        server.server_close()
