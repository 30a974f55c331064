"""Prefect's own server, for the time of one command, where no other is configured.

Prefect would start the same server by itself, but only when the flow begins, without a password, over a database that
all of a user's commands share, and after loading all of the server's code into the driver too.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from http.client import HTTPException
from pathlib import Path
from typing import IO

from flows.errors import ConfigError, ServerStartError
from flows.lifecycle.prefect_database import copy_empty, keep_empty
from flows.lifecycle.prefect_login import LINK_FILE, make_link
from flows.lifecycle.prefect_settings import configured_api, read_settings
from flows.lifecycle.private_folder import Home
from flows.lifecycle.stopping import FROM_TERMINAL

DATABASE = "prefect.db"
START_SECONDS = 180
STOP_SECONDS = 10
RUNS_KEPT_SECONDS = 90 * 86400
PR_SET_PDEATHSIG = 1
_LINES_KEPT, _LINES_SHOWN = 100, 5
_KEPT = ("PREFECT_SERVER_CORS_", "PREFECT_SERVER_SERVICES_", "PREFECT_SERVER_UI_V2_", "PREFECT_SERVER_ANALYTICS_")
"""What a user's environment says to the server too; who may enter, and where things are, is not his to say."""


class EmbeddedServer:
    """A Prefect server on localhost that ends with this process, whatever ends it, and its folder with it.

    Nobody but this user gets in: it asks for a password that stands in no file, and its folder is private.

    Args:
        port: where a whole server listens, with its pages and its schedules; None for one that only keeps the states
            of one command's flows, at a free port.
    """

    def __init__(self, port: int | None = None) -> None:
        self._port = port
        self._secret = f"overtile:{secrets.token_hex(32)}"
        self._listener: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._home: Home | None = None
        self._before: dict[str, str | None] = {}
        self._said: deque[str] = deque(maxlen=_LINES_KEPT)
        self._url = ""
        self._is_migrated = False

    @staticmethod
    def is_wanted() -> bool:
        """True if no server is configured, by environment or the active profile, for flows to report to.

        Raises:
            ConfigError: Prefect can't read its settings.
        """
        return configured_api() is None

    def listen(self) -> EmbeddedServer:
        """Take the port, and name the server to Prefect.

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
        self._home = Home()
        atexit.register(self.__exit__)
        self._name_to_prefect(self._home.path)
        return self

    def _name_to_prefect(self, home: Path) -> None:
        """Name the server to Prefect, in this process and in those that it starts."""
        profiles = str(read_settings().profiles_path)  # what it says of other things, such as logs, still holds
        message = {"PREFECT_API_URL": self._url, "PREFECT_API_AUTH_STRING": self._secret}
        message |= {"PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": profiles}
        own = "127.0.0.1,localhost"  # a proxy of the environment reaches nothing that listens there
        message |= {name: ",".join(filter(None, (os.environ.get(name), own))) for name in ("NO_PROXY", "no_proxy")}
        # What is meant for another server: this one has no use for it, and what can't be sent would end each call.
        message["PREFECT_CLIENT_CUSTOM_HEADERS"] = "{}"
        self._before = {name: os.environ.get(name) for name in (*message, "PREFECT_API_KEY")}
        os.environ.update(message)
        os.environ.pop("PREFECT_API_KEY", None)
        read_settings()

    @property
    def link(self) -> str:
        """The address of its pages that logs in whoever opens it first."""
        assert self._home is not None
        return make_link(self._home.path, self._url.removesuffix("/api"))

    @property
    def link_file(self) -> Path:
        """File that holds the next one, once a link is used."""
        assert self._home is not None
        return self._home.path / LINK_FILE

    def begin(self) -> EmbeddedServer:
        """Start at the port that is taken, or else takes one now."""
        if self._listener is None:
            return self.listen().begin()
        assert self._home is not None
        self._is_migrated = copy_empty(self._home.path / DATABASE)
        command = [sys.executable, "-m", "uvicorn", "--factory", "flows.lifecycle.prefect_login:create_app"]
        with self._listener as listener:  # closed here once it is passed on: a server that has died refuses
            self._process = subprocess.Popen(
                [*command, "--fd", str(listener.fileno()), "--log-level", "error", "--lifespan", "on"],
                env=self._environment(),
                cwd=self._home.path,  # no file of the working folder says anything to it
                pass_fds=[listener.fileno(), self._home.descriptor],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=_live_as_long_as_parent,  # noqa: PLW1509 (no other thread runs yet)
            )
        self._listener = None
        assert self._process.stdout is not None
        threading.Thread(target=self._read_log, args=(self._process.stdout,), name="server's log", daemon=True).start()
        return self

    def _read_log(self, log: IO[bytes]) -> None:
        """Keep the last lines of what it says; a file would grow for as long as it runs."""
        with log:
            self._said.extend(line.decode(errors="replace").rstrip() for line in log)

    def _environment(self) -> dict[str, str]:
        """The server's: nothing of the user's but what changes neither who gets in nor where things are."""
        assert self._home is not None
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT") or k.startswith(_KEPT)}
        pages = self._url.removesuffix("/api")
        own = f"{pages},{pages.replace('127.0.0.1', 'localhost')}"
        kept.setdefault("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", own)  # any web page may read it by default
        kept.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        # Of nights that are served for months Prefect keeps every flow run, with its logs and artifacts, by default.
        kept.setdefault("PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED", "events,flow_runs")
        kept.setdefault("PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD", str(RUNS_KEPT_SECONDS))
        home = self._home.path
        kept |= {
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_HOME": str(home),
            "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/{DATABASE}",
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "pages"),
            # Prefect asks for nothing by default: other users of the machine, and any web page, could call it.
            "PREFECT_SERVER_API_AUTH_STRING": self._secret,
            "PREFECT_SERVER_UI_API_URL": self._url,  # else its pages ask Prefect's default port
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
            # In a folder of its own: what is imported here is found by the same names there.
            "PYTHONPATH": os.pathsep.join(str(Path(each).absolute()) for each in sys.path),
        }
        if self._port is None:
            kept["PREFECT__SERVER_EPHEMERAL"] = "1"
        return kept

    def __enter__(self) -> EmbeddedServer:
        """Wait until it answers.

        Raises:
            ServerStartError: it doesn't within three minutes, or has ended.
        """
        deadline = time.monotonic() + START_SECONDS
        while self._process is not None:
            code = self._process.poll()
            fault = self._ask() if code is None else f"it has ended with code {code}"
            if fault is None:
                break
            if code is not None or time.monotonic() > deadline:
                self.__exit__()
                raise ServerStartError(
                    f"Prefect's embedded server doesn't answer at {self._url} ({fault}) and said {self._last_words()}; "
                    f"make room in {tempfile.gettempdir()}, where its database is, or set TMPDIR; see "
                    f"what 'prefect server start' says, or set PREFECT_API_URL to a server that runs"
                )
            time.sleep(0.05)
        if self._home is not None and not self._is_migrated:
            keep_empty(self._home.path / DATABASE)  # before any flow is recorded there
        return self

    def _last_words(self) -> str:
        """The end of its log, on one line."""
        return " | ".join(line.strip() for line in [*self._said][-_LINES_SHOWN:] if line.strip()) or "nothing"

    def _ask(self) -> str | None:
        """The fault of the server's answer, on one line; None when it is well."""
        try:
            with urllib.request.urlopen(f"{self._url}/health", timeout=5):
                return None
        except (OSError, HTTPException) as error:
            return " ".join(str(error).split()) or type(error).__name__

    def __exit__(self, *_: object) -> None:
        self._stop()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if self._before:
            read_settings()
        self._before = {}
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._home is not None:
            self._home.remove()
            self._home = None
        atexit.unregister(self.__exit__)

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _live_as_long_as_parent() -> None:
    """Linux: end this process when the one that started it dies, also by a kill; and not before.

    Ctrl-C reaches all processes of a terminal's command: the flow that it stops still has its last state to record.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, FROM_TERMINAL)
