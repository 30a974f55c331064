"""One run of 4,096 tiles in which 200 processes of every kind are killed at random, then viewers and their reruns."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli import OVERTILE, Cli, clean_environment, mask_files
from killer import Killer, deal, table
from tiny import save_tiny, write_noise

from flows.viewer.guard import TOKEN_HEADER
from tiling.ledger import TileState
from tiling.run import Run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

GRID, CORE = int(os.environ.get("OVERTILE_GRID", "64")), 64
TILES = GRID * GRID
KILLS = int(os.environ.get("OVERTILE_KILLS", "200"))
SEED = int(os.environ.get("OVERTILE_SEED", "1"))
SHARES = {
    "tile actor": 118,
    "stager": 24,
    "Prefect's server": 12,
    "log monitor": 6,
    "driver": 10,
    "raylet": 8,
    "gcs_server": 8,
    "dashboard agent": 8,
    "runtime agent": 6,
}
"""In 200 kills, of which those that end a driver are few: each costs a start."""
ASKED = os.environ.get("OVERTILE_KINDS", "")
"""Some of the kinds, with commas between them; all by default."""
ABOUT_THE_VIEWER = max(2, KILLS // 25)
SECONDS_WITHOUT_A_TILE = 240


class Undertaker:
    """Starts the same command again whenever it has ended, and kills what it has started.

    Before each kill it waits until a random number of further shards has been written, so that the kills are spread
    over the whole run, however fast it is, and none is of a run that stands still.
    """

    def __init__(self, killer: Killer, command: list[str], cli: Cli, folder: Path) -> None:
        self.killer, self.starts, self.words = killer, 0, list[str]()
        self._command, self._environment, self._folder = command, killer.environment(cli.environment), folder
        self._log = folder.with_suffix(".log")
        self._is_killed = False
        self._driver = self._start()

    def run(self, kills: int) -> None:
        """Kill as often, then let the run end."""
        shares = {kind: share for kind, share in SHARES.items() if not ASKED or kind in ASKED.split(",")}
        deck = deal(shares, kills, self.killer.random)
        for number in range(kills):
            written = self._written()
            share = (TILES - written) / (kills - number + 1)
            self._wait_for_shards(written + max(1, round(share * self.killer.random.uniform(0.2, 0.8))))
            time.sleep(self.killer.random.uniform(0.0, 0.03))
            self._kill_one(deck)
        deadline = time.monotonic() + 900
        while not self._is_complete():
            assert time.monotonic() < deadline, "the run doesn't end"
            time.sleep(0.1)

    def _kill_one(self, deck: list[str]) -> None:
        """The first kind of the deck that there is; where there is none, the driver, whose next start has them all."""
        deadline = time.monotonic() + 30
        while True:
            self._keep_running()
            for number, kind in enumerate(deck):
                if self._kill(kind):
                    del deck[number]
                    return
            if time.monotonic() > deadline and self._kill("driver"):
                deck.pop()
                return
            time.sleep(0.05)

    def _kill(self, kind: str) -> bool:
        is_killed = self.killer.kill(kind)
        if is_killed and kind == "driver":
            self._is_killed = True
            self._driver.wait()
            self._keep_running()
        return is_killed

    def _wait_for_shards(self, wanted: int) -> None:
        written, since = -1, time.monotonic()
        while (now := self._written()) < wanted:
            if now > written:
                written, since = now, time.monotonic()
            assert time.monotonic() - since < SECONDS_WITHOUT_A_TILE, f"the run stands still at {now} tiles: {self}"
            self._keep_running()
            time.sleep(0.01)

    def _written(self) -> int:
        return sum(1 for _ in self._folder.glob("mask.ome.zarr/0/c/*/[0-9]*"))

    def _keep_running(self) -> None:
        assert not self._is_complete(), "the run has ended before the last kill"

    def _is_complete(self) -> bool:
        """Whether it has ended well; where it has ended otherwise, it said why on one line, and is started again."""
        if (code := self._driver.poll()) is None:
            return False
        if code == 0:
            return True
        lines = self._log.read_text(errors="replace").splitlines()
        told = "\n".join(line for line in lines if not line.startswith("WARNING flows."))  # tiles that are tried again
        if self._is_killed:
            assert "Traceback" not in told, told
        else:
            self.words.append(told)
            assert code == 1, f"the driver ended with {code}, {self}: {told}"
            assert re.fullmatch("error: [^\n]+", told), f"more or less than one line, {self}: {told}"
        self._is_killed = False
        self._driver = self._start()
        return False

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self._log.open("wb") as file:
            return subprocess.Popen(self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=file)

    def __str__(self) -> str:
        return f"after {dict(self.killer.killed)} in {self.starts} starts"


@pytest.fixture
def killer() -> Iterator[Killer]:
    found = Killer(SEED)
    yield found
    found.end()


@pytest.fixture
def own(tmp_path: Path) -> Cli:
    """The command line with servers of its own, which can be killed too."""
    return Cli(clean_environment(tmp_path / "prefect", PREFECT_SERVER_ANALYTICS_ENABLED="false"))


def test_random_kills_of_every_kind_change_no_byte(own: Cli, killer: Killer, tmp_path: Path) -> None:
    image = write_noise(tmp_path / "noise.tif", GRID * CORE, GRID * CORE)
    model = save_tiny(tmp_path / "tiny")
    command = ("segment", image, "--model", model, "--core", CORE, "--foreground", "none", "--workers", 2, "--out")
    undisturbed = own.run(*command, tmp_path / "undisturbed", timeout=900)
    assert undisturbed.code == 0, undisturbed.err
    started, folder = time.monotonic(), tmp_path / "run"
    undertaker = Undertaker(killer, [str(OVERTILE), *map(str, command), str(folder)], own, folder)
    try:
        undertaker.run(KILLS)
    finally:
        print(json.dumps({"killed": dict(killer.killed), "starts": undertaker.starts}))  # noqa: T201
        for words in sorted(set(undertaker.words)):
            print(words)  # noqa: T201
    records = list(Run.open(folder).ledger.records())
    assert sorted(record.tile for record in records) == list(range(TILES)), "no tile is lost or counted twice"
    assert {record.state for record in records} == {TileState.DONE}
    assert products(folder) == products(tmp_path / "undisturbed")
    assert not list(folder.rglob("*.partial"))
    expect_nothing_left(killer)
    kill_viewers_and_their_reruns(killer, own, folder)
    again = own.run(*command, folder, timeout=900)
    assert again.code == 0, again.err
    assert products(folder) == products(tmp_path / "undisturbed")
    keep_table(killer, time.monotonic() - started)


def kill_viewers_and_their_reruns(killer: Killer, own: Cli, folder: Path) -> None:
    """One or the other while a tile is computed again, at any moment of it; the next viewer finds the run as it is."""
    environment = killer.environment(own.environment)
    for number in range(ABOUT_THE_VIEWER):
        command = [str(OVERTILE), "view", str(folder), "--no-browser"]
        viewer = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert viewer.stdout is not None
        found = re.search(r"(http://127\.0\.0\.1:\d+/)(\S*)", viewer.stdout.readline())
        assert found
        press(found[1], found[2], f"{number % GRID},{killer.random.randrange(GRID)}")
        time.sleep(killer.random.uniform(0.5, 15.0))
        killer.kill("viewer's rerun" if number % 2 else "viewer")
        viewer.kill()
        viewer.wait()
        expect_nothing_left(killer, seconds=180)


def press(page: str, token: str, tile: str) -> None:
    """What the page's button "compute again" sends, with the secret that the page holds."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    opener.open(page + token, timeout=60).close()
    with opener.open(f"{page}run", timeout=60) as answer:
        secret = re.search(r'name="overtile-token" content="([^"]+)"', answer.read().decode())
    assert secret
    body = json.dumps({"tiles": [[*map(int, tile.split(","))]]}).encode()
    headers = {"Content-Type": "application/json", TOKEN_HEADER: secret[1]}
    opener.open(urllib.request.Request(f"{page}api/rerun", body, headers), timeout=60).close()


def products(run: Path) -> dict[str, bytes]:
    """All that a person takes from a run: the mask with its pyramid, the picture, the exports."""
    exports = {str(file.relative_to(run)): file.read_bytes() for file in (run / "exports").rglob("*") if file.is_file()}
    return {**mask_files(run), **exports, "overlay.png": (run / "overlay.png").read_bytes()}


def expect_nothing_left(killer: Killer, seconds: float = 60) -> None:
    """No process outlives the command by long, whatever was killed."""
    deadline = time.monotonic() + seconds
    while left := killer.all():
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {left}")
        time.sleep(0.2)


def keep_table(killer: Killer, seconds: float) -> None:
    """For docs/reliability.md: measured, with the day and the machine."""
    where = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    head = f"{datetime.now(UTC):%Y-%m-%d}, {where}, seed {SEED}, {TILES:,} tiles, {seconds / 60:.0f} min"
    lines = [head, "", *table({"one run": killer.killed})]
    file = Path(__file__).parents[1] / "build" / "soak" / "one-run.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))  # noqa: T201
