"""Scaling with the number of tiles and of slides: seconds and memory of the driver, without any arithmetic.

    python -m benchmarks.scale tiles --count 100000 --out runs/scale
    python -m benchmarks.scale look --count 10000 --out runs/scale
    python -m benchmarks.scale night --count 250 --out runs/scale

tiles: one slide is planned, every tile written into the ledger, and the ledger folded. look: an archive of files that
are all in the ledger is listed and held against it, as every night begins. night: a night over slides of one tile, with
actors that do nothing, and a second one that finds nothing to do.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.driver import DIGEST, IdleActor, wait_for_all, write_blank
from flows.archive import segment_archive
from flows.config.archive import ArchiveConfig
from flows.config.run import SegmentConfig
from flows.nightly.scan import scan
from flows.pool.open import started_pool
from flows.pool.pool import Pool
from flows.run.prepare import prepare
from flows.run.steps import remaining
from flows.worker.tuning import Tuning
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.slide import file_version
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run

COUNTS = {"tiles": (10_000, 100_000, 1_000_000), "look": (1_000, 10_000), "night": (50, 200)}
CORE_PX = 16
SECONDS = {"stage": 0.061234, "read": 0.012345, "compute": 0.345678, "write": 0.023456}
SLIDE_PX = 16
SLIDES_PER_FOLDER = 1000
SETTLED = {"precision": "float32", "core": CORE_PX, "foreground": "none", "settle": 0, "staging": False}


def tiles(count: int, out: Path) -> dict[str, Any]:
    """One slide of many tiles."""
    image = write_blank(out / f"blank-{count}.tif", count)
    config = SegmentConfig(image=image, out=out / "run", core=CORE_PX, foreground="none")
    before, began = resident(), time.perf_counter()
    run = prepare(config, 2, lambda request: Tuning("float32", CORE_PX, {}))
    planned = time.perf_counter()
    worker = "a-host-of-some-name 1234567 0123456789ab"
    for index in range(run.plan.count):
        run.ledger.append(TileRecord(index, TileState.DONE, 1, DIGEST, None, worker, SECONDS, CORE_PX**2, time.time()))
    run.ledger.flush()
    written = time.perf_counter()
    reopened = Run.open(run.path)
    assert reopened.ledger.fold().count(TileState.DONE) == run.plan.count
    folded = time.perf_counter()
    assert remaining(reopened) == []
    seconds = {"plan": planned - began, "write": written - planned, "fold": folded - written}
    size = sum(file.stat().st_size for file in (out / "run/ledger").glob("*.jsonl"))
    return {"tiles": run.plan.count, "seconds": seconds, "grown_bytes": resident() - before, "ledger_bytes": size}


def listing(count: int, out: Path) -> dict[str, Any]:
    """An archive of which every file is known."""
    source = out / "slides"
    config = ArchiveConfig.model_validate({"source": str(source), "out": out / "archive"})
    card = ArchiveCard(created="", model="nuclei", model_digest="", maths_version=1, asked={})
    archive = Archive.create_or_resume(config.out, card)
    for number in range(count):
        name = f"{number // SLIDES_PER_FOLDER:03}/{number:07}.svs"
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"")
        stamp = file_version(source / name)
        assert stamp is not None
        folder = f"slides/{name}"
        (out / "archive" / folder).mkdir(parents=True)
        (out / "archive" / folder / "run.json").write_bytes(b"")
        archive.ledger.append(
            SlideRecord(name, SlideState.DONE, folder, stamp.size_bytes, stamp.version, f"{number:064x}", night="first")
        )
    archive.ledger.flush()
    before, began = resident(), time.perf_counter()
    reopened = Archive.open(config.out)
    opened = time.perf_counter()
    found = scan(config, reopened)
    looked = time.perf_counter()
    assert (found.unchanged, found.todo) == (count, ())
    return {
        "slides": count,
        "seconds": {"open": opened - began, "look": looked - opened},
        "grown_bytes": resident() - before,
    }


def night(count: int, out: Path) -> dict[str, Any]:
    """A night over slides of one tile each, and the next."""
    source = out / "slides"
    draw = np.random.default_rng(0)
    for number in range(count):
        path = source / f"{number // SLIDES_PER_FOLDER:03}/{number:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (SLIDE_PX, SLIDE_PX, 3), np.uint8)).save(path)
    config = ArchiveConfig.model_validate({"source": str(source), "out": out / "archive", "as_is": True, **SETTLED})
    first, before, after = hold(config)
    second, _, _ = hold(config)
    assert (len(first.records), second.unchanged) == (count, count)
    return {
        "slides": count,
        "seconds": {"first": first.seconds, "second": second.seconds},
        "grown_bytes": after - before,
    }


def hold(config: ArchiveConfig) -> tuple[Any, int, int]:
    """One night with actors that do nothing, and the driver's memory before and after."""
    with Pool(2, actor=IdleActor) as pool:
        wait_for_all(pool)
        started_pool.set(pool)
        before = resident()
        held = segment_archive(config)
        return held, before, resident()


def resident() -> int:
    return psutil.Process().memory_info().rss


PARTS: dict[str, Callable[[int, Path], dict[str, Any]]] = {"tiles": tiles, "look": listing, "night": night}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what grows with tiles and slides.")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    print(json.dumps(PARTS[given.part](given.count, given.out)))
    shutil.rmtree(given.out)


if __name__ == "__main__":
    main()
