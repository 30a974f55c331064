"""One command started again and again until it ends well, while processes of every kind are killed."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from cli import Cli
from killer import Killer, deal

SECONDS_WITHOUT_A_TILE = 240


class Undertaker:
    """Starts the same command again whenever it has ended, and kills what it has started.

    Before each kill it waits until a random number of further shards has been written, so that the kills are spread
    over the whole run, however fast it is, and none is of a run that stands still.

    Args:
        killer: kills, and counts by kind.
        command: makes or resumes what lies in `folder`.
        cli: its environment.
        folder: a run, or an archive.
        tiles: as many shards are there at the end.
    """

    def __init__(self, killer: Killer, command: list[str], cli: Cli, folder: Path, tiles: int) -> None:
        self.killer, self.starts, self.words = killer, 0, list[str]()
        self._command, self._environment, self._folder = command, killer.environment(cli.environment), folder
        self._tiles = tiles
        self._log = folder.with_suffix(".log")
        self._is_killed = False
        self._driver = self._start()

    def run(self, kills: int, shares: Mapping[str, int]) -> None:
        """Kill as often, each kind by its share, then let the command end."""
        deck = deal(shares, kills, self.killer.random)
        for number in range(kills):
            written = self._written()
            share = (self._tiles - written) / (kills - number + 1)
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
        shards = "mask.ome.zarr/0/c/*/[0-9]*"
        return sum(1 for pattern in (shards, f"slides/*/{shards}") for _ in self._folder.glob(pattern))

    def _keep_running(self) -> None:
        assert not self._is_complete(), "the run has ended before the last kill"

    def _is_complete(self) -> bool:
        """Whether it has ended well; where it has ended otherwise, it said why on one line, and is started again."""
        if (code := self._driver.poll()) is None:
            return False
        if code == 0:
            return True
        lines = self._log.read_text(errors="replace").splitlines()
        output = "\n".join(
            line for line in lines if not line.startswith("WARNING flows.")
        )  # tiles that are tried again
        if self._is_killed:
            assert "Traceback" not in output, output
        else:
            self.words.append(output)
            assert code == 1, f"the driver ended with {code}, {self}: {output}"
            assert re.fullmatch("error: [^\n]+", output), f"more or less than one line, {self}: {output}"
        self._is_killed = False
        self._driver = self._start()
        return False

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self._log.open("wb") as file:
            return subprocess.Popen(self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=file)

    def __str__(self) -> str:
        return f"after {dict(self.killer.killed)} in {self.starts} starts"
