"""Several Ray nodes on this machine: real raylets, token authentication on, each to be killed or cut off for itself."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from cli import Cli, clean_environment, free_port

RAY = Path(sys.executable).parent / "ray"
WAIT_SECONDS = 120
JOINED = "Ray runtime started"  # said when the head knows the node; its raylet runs for a while before that

QUICK_TO_NOTICE = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""So that the cluster counts a node as dead after seconds; Ray's own settings take up to a minute."""


@dataclass(slots=True, eq=False)
class Node:
    """One `ray start`, with all that it has started."""

    process: subprocess.Popen[bytes]

    @property
    def processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    @property
    def node_id(self) -> str | None:
        """As the ledger has it; None until the raylet runs."""
        for command in map(_command, self.processes):
            if command and Path(command[0]).name == "raylet":
                return next(part.partition("=")[2] for part in command if part.startswith("--node_id="))[:12]
        return None

    def of(self, kind: str) -> list[psutil.Process]:
        """The node's processes of an actor class."""
        return [each for each in self.processes if "".join(_command(each)).startswith(f"ray::{kind}")]

    def kill(self) -> None:
        """As when the machine's power is cut: without a word to anybody."""
        _kill(self.processes)
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """The way that it is meant."""
        started = self.processes
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        _kill(started)
        self.process.kill()
        self.process.wait()


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


@dataclass(slots=True)
class Cluster:
    """A head without processors of its own, and nodes that come and go."""

    address: str
    environment: dict[str, str]
    logs: Path
    nodes: list[Node] = field(default_factory=list[Node])

    @property
    def cli(self) -> Cli:
        return Cli(self.environment)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def join(self, *more: str, cpus: int = 1, ip: str = "127.0.0.1", within: Sequence[str] = ()) -> Node:
        """Start a node, with more options of `ray start`; `within` is a command before its command."""
        options = (f"--address={self.address}", f"--num-cpus={cpus}", f"--node-ip-address={ip}")
        return self.start(*options, *more, within=within)

    def start(self, *options: str, within: Sequence[str] = ()) -> Node:
        memory, message = "--object-store-memory=80000000", self.logs / f"{len(self.nodes)}.log"
        with message.open("wb") as log:
            command = [*within, str(RAY), "start", "--block", "--disable-usage-stats", memory, *options]
            node = Node(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))
        self.nodes.append(node)
        deadline = time.monotonic() + WAIT_SECONDS
        while JOINED not in message.read_text() or node.node_id is None:
            if node.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no node has started:\n{message.read_text()[-2000:]}")
            time.sleep(0.1)
        return node


@contextmanager
def cluster(folder: Path, ip: str = "127.0.0.1", **settings: str) -> Generator[Cluster]:
    """A head node that knows no processor; everything ends with it."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = clean_environment(folder / "prefect", **token, **settings)
    started = Cluster(f"{ip}:{port}", environment, folder)
    try:
        head = ("--head", f"--port={port}", "--num-cpus=0", f"--node-ip-address={ip}", "--include-dashboard=false")
        started.start(*head)
        yield started
    finally:
        for node in reversed(started.nodes):
            node.stop()


@dataclass(frozen=True, slots=True)
class Link:
    """A network namespace as another machine would be: an address of its own, at the other end of a cable."""

    name: str
    here: str
    there: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What comes before a command that runs there."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        _ip("link", "set", f"{self.name}a", "down")


@contextmanager
def linked_namespace() -> Generator[Link]:
    octet = 1 + secrets.randbelow(250)
    link = Link(f"ov{secrets.token_hex(3)}", f"10.213.{octet}.1", f"10.213.{octet}.2")
    name = link.name
    if not _ip("netns", "add", name):
        pytest.skip("a network namespace needs root")
    try:
        assert _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        assert _ip("address", "add", f"{link.here}/24", "dev", f"{name}a")
        assert _ip("link", "set", f"{name}a", "up")
        assert _ip("-n", name, "address", "add", f"{link.there}/24", "dev", f"{name}b")
        assert _ip("-n", name, "link", "set", f"{name}b", "up")
        assert _ip("-n", name, "link", "set", "lo", "up")
        yield link
    finally:
        _ip("link", "delete", f"{name}a")
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0
