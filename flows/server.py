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
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from flows.errors import FlowError

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
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @staticmethod
    def is_wanted() -> bool:
        """Whether no server is configured, by environment or profile, for flows to report to."""
        home = Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect"))
        profiles = home / "profiles.toml"
        configured = profiles.is_file() and "PREFECT_API_URL" in profiles.read_text(encoding="utf-8", errors="replace")
        return "PREFECT_API_URL" not in os.environ and not configured

    def begin(self) -> EmbeddedServer:
        """Start, and name the server to Prefect, which must not have been imported yet."""
        port = self._port or _free_port()
        self._url = f"http://127.0.0.1:{port}/api"
        spec = find_spec("prefect")
        assert spec is not None
        assert spec.origin is not None
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(spec.origin).parent.parent)]
        command += ["--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(port)]
        environment = {**os.environ, "PREFECT__SERVER_FINAL": "1"}
        if self._port is None:
            environment["PREFECT__SERVER_EPHEMERAL"] = "1"
            # Prefect asks for nothing by default: other users of the machine, and any web page, could call it.
            secret = f"overtile:{secrets.token_hex(32)}"
            environment["PREFECT_SERVER_API_AUTH_STRING"] = os.environ["PREFECT_API_AUTH_STRING"] = secret
        environment["PREFECT_SERVER_UI_API_URL"] = self._url  # else its pages ask Prefect's default port
        self._process = subprocess.Popen(
            [*command, "--log-level", "critical", "--lifespan", "on"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 (no other thread runs yet)
        )
        os.environ["PREFECT_API_URL"] = self._url
        return self

    def __enter__(self) -> EmbeddedServer:
        """Wait until it answers.

        Raises:
            FlowError: it doesn't within three minutes.
        """
        deadline = time.monotonic() + START_SECONDS
        while self._process is not None:
            try:
                with urllib.request.urlopen(f"{self._url}/health", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise FlowError(
                        f"Prefect's embedded server doesn't answer at {self._url} ({error}); see what "
                        f"'prefect server start' says, or set PREFECT_API_URL to a server that runs"
                    ) from error
            time.sleep(0.05)
        return self

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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    """Linux: end this process when the one that started it dies, also by a kill."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
