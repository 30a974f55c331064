"""One run of 4,096 tiles in which 200 processes are killed at random: workers, stagers, and the driver itself."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cli import Cli, mask_files
from tiny import save_tiny, write_noise

from tiling.ledger import TileState
from tiling.run import Run

pytestmark = pytest.mark.soak

GRID, CORE = int(os.environ.get("OVERTILE_GRID", "64")), 64
TILES = GRID * GRID
KILLS = int(os.environ.get("OVERTILE_KILLS", "200"))
SEED = int(os.environ.get("OVERTILE_SEED", "1"))
VICTIMS = {"TileActor": 78, "StagingActor": 16, "driver": 6}  # in 100 kills
SECONDS_WITHOUT_A_TILE = 240


class Undertaker:
    """Starts the same command again and again, and kills what it has started.

    Before each kill it waits until a random number of further shards has been written, so that the kills are spread
    over the whole run, however fast it is, and none is of a run that stands still.
    """

    def __init__(self, cli: Cli, command: tuple[object, ...], folder: Path, seed: int) -> None:
        self._cli, self._command, self._folder = cli, command, folder
        self._random = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.starts = 0
        self._driver = self._start()

    def run(self, kills: int) -> None:
        """Kill as often, then let the run end."""
        for number in range(kills):
            written = self._written()
            share = (TILES - written) / (kills - number + 1)
            self._wait_for_shards(written + max(1, round(share * self._random.uniform(0.2, 0.8))))
            time.sleep(self._random.uniform(0.0, 0.03))
            self._kill_one()
        while (code := self._driver.wait(900)) != 0:
            assert code == -signal.SIGKILL, f"the driver ended with {code}, and nobody killed it"
            self._driver = self._start()

    def _kill_one(self) -> None:
        kind = self._random.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        if kind == "driver":
            self._driver.kill()
            self._driver.wait()
            self._driver = self._start()
        else:
            victims = _actors(self._driver.pid, kind)
            while not victims:  # all of them are being started
                self._expect_driver()
                time.sleep(0.05)
                victims = _actors(self._driver.pid, kind)
            with suppress(psutil.NoSuchProcess):
                self._random.choice(victims).kill()
        self.killed[kind] += 1

    def _wait_for_shards(self, wanted: int) -> None:
        written, since = -1, time.monotonic()
        while True:
            now = self._written()
            if now >= wanted:
                return
            if now > written:
                written, since = now, time.monotonic()
            assert time.monotonic() - since < SECONDS_WITHOUT_A_TILE, f"the run stands still at {now} tiles"
            self._expect_driver()
            time.sleep(0.01)

    def _written(self) -> int:
        return sum(1 for _ in self._folder.glob("mask.ome.zarr/0/c/*/[0-9]*"))

    def _expect_driver(self) -> None:
        assert self._driver.poll() is None, f"the driver ended with {self._driver.returncode}, and nobody killed it"

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        return self._cli.start(*self._command)


def _actors(driver: int, kind: str) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "".join(process.cmdline()).startswith(f"ray::{kind}"):
                    found.append(process)
    return found


def test_200_random_kills_change_no_byte(cli: Cli, tmp_path: Path) -> None:
    image = write_noise(tmp_path / "noise.tif", GRID * CORE, GRID * CORE)
    model = save_tiny(tmp_path / "tiny")
    command = ("segment", image, "--model", model, "--core", CORE, "--foreground", "none", "--workers", 2, "--out")
    undisturbed = cli.run(*command, tmp_path / "undisturbed", timeout=900)
    assert undisturbed.code == 0, undisturbed.err
    started = time.monotonic()
    undertaker = Undertaker(cli, (*command, tmp_path / "run"), tmp_path / "run", SEED)
    undertaker.run(KILLS)
    seconds = time.monotonic() - started
    run = Run.open(tmp_path / "run")
    records = list(run.ledger.records())
    assert sorted(record.tile for record in records) == list(range(TILES)), "no tile is lost or counted twice"
    assert {record.state for record in records} == {TileState.DONE}
    assert mask_files(tmp_path / "run") == mask_files(tmp_path / "undisturbed")
    assert not list((tmp_path / "run").rglob("*.partial"))
    facts = {
        "seed": SEED,
        "kills": dict(undertaker.killed),
        "drivers": undertaker.starts,
        "workers": len({record.worker for record in records}),
        "tiles tried again": sum(record.attempts > 1 for record in records),
        "seconds": round(seconds),
    }
    print(json.dumps(facts))  # noqa: T201 (what the run cost, for whoever started it)
