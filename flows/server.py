"""Prefect's own server, for the time of one command, where no other is configured.

Prefect would start the same server by itself, but only when the flow begins, and after loading all of the
server's code into the driver too; started first, it loads while Ray and torch do.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path

from flows.errors import ConfigError, FlowError

START_SECONDS = 180
STOP_SECONDS = 10
PR_SET_PDEATHSIG = 1


class EmbeddedServer:
    """A Prefect server on localhost that ends with this process, whatever ends it.

    Args:
        port: where a whole server listens, with its pages and its schedules; None for one that only keeps the states
            of one command's flows, at a free port.
    """

    def __init__(self, port: int | None = None) -> None:
        self._port = port
        self._listener: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @staticmethod
    def is_wanted() -> bool:
        """Whether no server is configured, by environment or profile, for flows to report to."""
        home = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))
        profiles = home / "profiles.toml"
        configured = profiles.is_file() and "PREFECT_API_URL" in profiles.read_text(encoding="utf-8", errors="replace")
        return "PREFECT_API_URL" not in os.environ and not configured

    def listen(self) -> EmbeddedServer:
        """Take the port, and name the server to Prefect, which must not have been imported yet.

        The server inherits the socket: between looking for a free port and listening there, Ray could take it.

        Raises:
            ConfigError: something else listens there.
        """
        port = self._port or 0
        try:
            self._listener = socket.create_server(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"Prefect's server needs a port of its own, and 127.0.0.1:{port} can't be had "
                f"({os.strerror(error.errno or 0)}): flows would be registered at whoever answers there; give another "
                f"--port, or set PREFECT_API_URL=http://127.0.0.1:{port}/api to use a Prefect server that runs there"
            ) from error
        # What the listener has, its connections have too; uvicorn doesn't set it on a socket that it inherits, and
        # every answer would wait for the client's delayed acknowledgement.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"
        os.environ["PREFECT_API_URL"] = self._url
        return self

    def begin(self) -> EmbeddedServer:
        """Start at the port that is taken, or else takes one now."""
        if self._listener is None:
            return self.listen().begin()
        spec = find_spec("prefect")
        assert spec is not None
        assert spec.origin is not None
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(spec.origin).parent.parent)]
        command += ["--factory", "prefect.server.api.server:create_app", "--fd", str(self._listener.fileno())]
        with self._listener as listener:  # closed here once it is passed on: a server that has died refuses
            self._process = subprocess.Popen(
                [*command, "--log-level", "critical", "--lifespan", "on"],
                env=self._environment(),
                pass_fds=[listener.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 (no other thread runs yet)
            )
        self._listener = None
        return self

    def _environment(self) -> dict[str, str]:
        """The server's; with a secret for the two of us where nobody else is meant to ask it."""
        environment = {**os.environ, "PREFECT__SERVER_FINAL": "1"}
        environment.pop("PREFECT_API_URL")  # that is for its clients
        if self._port is None:
            environment["PREFECT__SERVER_EPHEMERAL"] = "1"
            # Prefect asks for nothing by default: other users of the machine, and any web page, could call it.
            secret = f"overtile:{secrets.token_hex(32)}"
            environment["PREFECT_SERVER_API_AUTH_STRING"] = os.environ["PREFECT_API_AUTH_STRING"] = secret
        environment["PREFECT_SERVER_UI_API_URL"] = self._url  # else its pages ask Prefect's default port
        pages = self._url.removesuffix("/api")
        own = f"{pages},{pages.replace('127.0.0.1', 'localhost')}"
        environment.setdefault("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", own)  # any web page may read it by default
        return environment

    def __enter__(self) -> EmbeddedServer:
        """Wait until it answers.

        Raises:
            FlowError: it doesn't within three minutes, or has ended.
        """
        deadline = time.monotonic() + START_SECONDS
        while self._process is not None:
            code = self._process.poll()
            fault = self._ask() if code is None else f"it has ended with code {code}"
            if fault is None:
                break
            if code is not None or time.monotonic() > deadline:
                self.__exit__()
                raise FlowError(
                    f"Prefect's embedded server doesn't answer at {self._url} ({fault}); see what "
                    f"'prefect server start' says, or set PREFECT_API_URL to a server that runs"
                )
            time.sleep(0.05)
        return self

    def _ask(self) -> str | None:
        """What is wrong with the server's answer, on one line; None when it is well."""
        try:
            with urllib.request.urlopen(f"{self._url}/health", timeout=5):
                return None
        except (OSError, HTTPException) as error:
            return " ".join(str(error).split()) or type(error).__name__

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        os.environ.pop("PREFECT_API_URL", None)
        os.environ.pop("PREFECT_API_AUTH_STRING", None)


def _end_with_parent() -> None:
    """Linux: end this process when the one that started it dies, also by a kill."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
