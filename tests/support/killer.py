"""Kills processes of one command, by kind and never anybody else's, and counts them."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress

import psutil

MARK = "OVERTILE_TEST_MARK"

KINDS: dict[str, tuple[str, ...]] = {
    "driver": ("/overtile segment ", "/overtile archive "),
    "tile actor": ("ray::TileActor",),
    "stager": ("ray::StagingActor",),
    "raylet": ("/raylet/raylet ",),
    "gcs_server": ("/gcs/gcs_server ",),
    "dashboard agent": ("ray::DashboardAgent", "/dashboard/agent.py "),
    "runtime agent": ("ray::RuntimeEnvAgent", "/runtime_env/agent/main.py "),
    "log monitor": ("/_private/log_monitor.py ",),
    "Prefect's server": ("prefect.server.api.server:create_app", "flows.lifecycle.prefect_login:create_app"),
    "served process": ("/overtile serve ",),
    "flow run": ("prefect.engine", "prefect.flow_engine"),
    "viewer": ("/overtile view ",),
    "viewer's rerun": ("from flows.entry import main; main() rerun ",),
}
"""What a command line of each kind holds."""


class Killer:
    """Knows a command's processes, orphans too, by a variable that no other process has in its environment."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self._mark = uuid.uuid4().hex
        self._agents: set[psutil.Process] = set()

    def environment(self, of: Mapping[str, str]) -> dict[str, str]:
        """The same, with the mark that all processes of the command inherit."""
        return {**of, MARK: self._mark}

    def processes(self, kind: str) -> list[psutil.Process]:
        """Those of a kind; a child that has yet to become another program is its parent's double, and is left out."""
        found = [each for each in self.all() if _kind(each) == kind]
        pids = {each.pid for each in found}
        return [each for each in found if _parent(each) not in pids]

    def kill(self, kind: str) -> bool:
        """Kill one of a kind; one that there isn't is no kill."""
        for victim in self.random.sample(found := self.processes(kind), len(found)):
            with suppress(psutil.NoSuchProcess):
                victim.kill()
                self.killed[kind] += 1
                return True
        return False

    def all(self) -> list[psutil.Process]:
        """Every process that lives and has the mark."""
        return [each for each in psutil.process_iter() if self._is_ours(each)]

    def end(self) -> None:
        """End what is left, uncounted."""
        for each in self.all():
            with suppress(psutil.NoSuchProcess):
                each.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        """Ray's agents write titles over their environments: they are known by their parent, once seen for good."""
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if process.environ().get(MARK) == self._mark:
                return True
            if "agent" in (_kind(process) or "") and process not in self._agents:
                parent = process.parent()
                if parent is not None and parent.environ().get(MARK) == self._mark:
                    self._agents.add(process)
            return process in self._agents
        except (psutil.Error, OSError):
            return False


def deal(counts: Mapping[str, int], number: int, chance: random.Random) -> list[str]:
    """So many kinds in random order, each with its share of `counts`, and at least one."""
    total = sum(counts.values())
    cards = [kind for kind, count in counts.items() for _ in range(max(1, round(number * count / total)))]
    most = max(counts, key=lambda kind: counts[kind])
    cards += [most] * (number - len(cards))
    chance.shuffle(cards)
    return cards


def table(columns: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Kills by kind as a table in Markdown, one column per soak."""
    kinds = [kind for kind in KINDS if any(kind in column for column in columns.values())]
    rows = [_row([kind, *(column.get(kind, 0) for column in columns.values())]) for kind in kinds]
    sums = _row(["together", *(sum(column.values()) for column in columns.values())])
    return [_row(["killed", *columns]), "|---|" + "---:|" * len(columns), *rows, sums]


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _kind(process: psutil.Process) -> str | None:
    try:
        line = " ".join(process.cmdline()) + " "
    except psutil.Error:
        return None
    return next((kind for kind, signs in KINDS.items() if any(sign in line for sign in signs)), None)


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0
