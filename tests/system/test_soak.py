"""A run and an archive's night in which processes of every kind are killed at random, then viewers and their reruns."""

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
from killer import Killer, table
from tiny import save_tiny, write_noise
from undertaker import Undertaker

from flows.viewer.guard import TOKEN_HEADER
from tiling.archives.archive import Archive
from tiling.archives.slide_record import SlideState
from tiling.runs.ledger import TileState
from tiling.runs.run import Run

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
CHOSEN = {kind: share for kind, share in SHARES.items() if not ASKED or kind in ASKED.split(",")}
ABOUT_THE_VIEWER = max(2, KILLS // 25)
SLIDES, SLIDE_CORES = 60, 4
NIGHT_KILLS = int(os.environ.get("OVERTILE_NIGHT_KILLS", "50"))


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
    undertaker = Undertaker(killer, [str(OVERTILE), *map(str, command), str(folder)], own, folder, TILES)
    try:
        undertaker.run(KILLS, CHOSEN)
    finally:
        say(undertaker)
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
    keep_table("one run", f"{TILES:,} tiles", killer, time.monotonic() - started)


def test_random_kills_of_every_kind_in_an_archives_night(own: Cli, killer: Killer, tmp_path: Path) -> None:
    source, out, sides = tmp_path / "in", tmp_path / "out", SLIDE_CORES * CORE
    source.mkdir()
    for number in range(SLIDES):
        write_noise(source / f"{number:02}.tif", sides, sides, seed=number)
    model = save_tiny(tmp_path / "tiny")
    settings = ("--core", CORE, "--foreground", "none", "--workers", 2, "--settle", "0s")
    command = ("archive", source, "--model", model, *settings, "--out")
    undisturbed = own.run(*command, tmp_path / "undisturbed", timeout=1800)
    assert undisturbed.code == 0, undisturbed.err
    started, tiles = time.monotonic(), SLIDES * SLIDE_CORES**2
    undertaker = Undertaker(killer, [str(OVERTILE), *map(str, command), str(out)], own, out, tiles)
    try:
        undertaker.run(NIGHT_KILLS, CHOSEN)
    finally:
        say(undertaker)
    known = {record.slide: record for record in Archive.open(out).ledger}
    assert {name: record.state for name, record in known.items()} == {
        f"{number:02}.tif": SlideState.DONE for number in range(SLIDES)
    }
    for name in known:
        assert products(out / "slides" / name) == products(tmp_path / "undisturbed" / "slides" / name), name
    assert not list(out.rglob("*.partial"))
    expect_nothing_left(killer)
    keep_table("one night", f"{SLIDES} slides of {SLIDE_CORES**2} tiles", killer, time.monotonic() - started)


def say(undertaker: Undertaker) -> None:
    print(json.dumps({"killed": dict(undertaker.killer.killed), "starts": undertaker.starts}))  # noqa: T201
    for words in sorted(set(undertaker.words)):
        print(words)  # noqa: T201


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


def keep_table(name: str, what: str, killer: Killer, seconds: float) -> None:
    """For docs/reliability.md: measured, with the day and the machine."""
    where = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    head = f"{datetime.now(UTC):%Y-%m-%d}, {where}, seed {SEED}, {what}, {seconds / 60:.0f} min"
    lines = [head, "", *table({name: killer.killed})]
    file = Path(__file__).parents[2] / "build" / "soak" / f"{name.replace(' ', '-')}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))  # noqa: T201
