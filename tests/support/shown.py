"""`overtile view` at work, for whoever looks at its pages."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli import OVERTILE
from starlette.testclient import TestClient

from flows.viewer.door import Door
from flows.viewer.library import Library
from flows.viewer.site import make_site

ADDRESS = "http://127.0.0.1:8000/"


@dataclass(frozen=True, slots=True)
class Shown:
    """A viewer that runs: the link that it printed, and the address that the link leads to."""

    link: str

    @property
    def address(self) -> str:
        return self.link.partition("?")[0]


@contextmanager
def shown(place: Path, environment: Mapping[str, str] | None = None) -> Generator[Shown]:
    """The command line's own server; without an environment it has this process's."""
    command = [str(OVERTILE), "view", str(place), "--no-browser"]
    viewer = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert viewer.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", viewer.stdout.readline())
        assert found
        yield Shown(found[0])
    finally:
        viewer.terminate()
        viewer.wait(60)


@contextmanager
def let_in(library: Library) -> Generator[TestClient]:
    """A client that has come by the link."""
    door = Door()
    with TestClient(make_site(library, door), ADDRESS) as client:
        assert client.get(door.link(ADDRESS), follow_redirects=False).status_code == 303
        yield client
