"""All benchmarks with one command: `make benchmark`, or `python -m benchmarks [PART …]`.

Every part writes its raw figures to `benchmarks/results/PART.json` as they come; the table and the plot are drawn
from all parts that are there. Scratch space, slides and the peers' environments are under `.benchmarks/`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from benchmarks import contest, exports, growth, machine, scale, scene_rates, table
from benchmarks.foreign_packages import is_installed
from benchmarks.peers.environments import PEERS, PLOT, PeerError
from benchmarks.process import MeasurementError, run
from benchmarks.slide import REAL_SLIDE, tissue
from unet_core.bundles.networks import network_summaries

ROOT = Path(__file__).resolve().parents[1]
SCRATCH = ROOT / ".benchmarks"
RESULTS = ROOT / "benchmarks" / "results"
PARTS = (
    "contest",
    "large",
    "growth",
    "driver",
    "startup",
    "archive",
    "scale",
    "steps",
    "exports",
    "polygons",
    "measuring",
    "scenes",
    "imported",
    "report",
)
SIDES_PX = (1024, 2048, 4096, 8192, 16384)


def log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def hold_contest(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    ground = contest.prepare(SCRATCH / "work", asked.side)
    found = contest.contestants(ground, asked.kinds, log)
    yield from contest.hold(ground, found, asked.rounds, log)


def hold_large(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    ground = contest.prepare(SCRATCH / "work", 4 * asked.side)
    found = contest.contestants(ground, {*asked.kinds} - {"peers"}, log)
    yield from contest.hold(ground, found, asked.rounds, log)


def hold_growth(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    yield from growth.hold(SCRATCH / "work", asked.sides, asked.rounds, log)


def hold_driver(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    command = [sys.executable, "-m", "benchmarks.driver", "--out", str(SCRATCH / "work" / "driver")]
    for number in range(asked.rounds):
        # The curve, then what each tile of a large slide takes.
        for actors, tiles in (*((actors, asked.tiles // 5) for actors in asked.actors), (2, asked.tiles)):
            row = run([*command, "--tiles", str(tiles), "--workers", str(actors)], sample_seconds=1.0)
            log(f"driver: {actors} actors, {row['milliseconds_per_tile']:.3f} ms per tile")
            yield {"kind": "driver", "round": number, **row}


def hold_startup(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    if not REAL_SLIDE.is_file():
        log(f"start-up is left out: {REAL_SLIDE.name} is absent")
        return
    command = [sys.executable, "-m", "benchmarks.startup", str(REAL_SLIDE), "--out", str(SCRATCH / "work" / "start")]
    for number in range(asked.rounds):
        for options in ([], ["--precision", "bfloat16"]):
            row = run([*command, *options], sample_seconds=1.0)
            log(f"start-up, precision {row['precision']}: {row['seconds']}")
            yield {"kind": "startup", "round": number, **row}


def hold_archive(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    command = [sys.executable, "-m", "benchmarks.archive", "--out", str(SCRATCH / "work" / "night")]
    for number in range(asked.rounds):
        row = run([*command, "--slides", str(asked.slides)], sample_seconds=1.0)
        log(f"archive: actors busy {row['busy_share']:.1%}, computing {row['computing_share']:.1%}")
        yield {"kind": "archive", "round": number, **row}


def hold_measuring(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    command = [sys.executable, "-m", "benchmarks.measuring", "--side"]
    for number in range(asked.rounds):
        for side in (4096, 8192, 16384):
            row = run([*command, str(side)], sample_seconds=0.2)
            log(f"measuring: {side} px, {row['seconds_per_gigapixel']:.1f} s per gigapixel, {row['peak_mb']:.0f} MB")
            yield {"kind": "measuring", "round": number, **row}


def hold_scenes(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    folder = SCRATCH / "work" / "scenes"
    command = [sys.executable, "-m", "benchmarks.scenes", "--folder", str(folder), "--side", str(asked.scene_side)]
    run([*command, "--scene", "--reader"])  # draws the files, which no reading's peak shall hold
    for number in range(asked.rounds):
        for scene, reader in product(scene_rates.SCENES, scene_rates.READERS):
            found = run([*command, "--scene", scene, "--reader", reader], sample_seconds=0.2)
            row = {**found["readings"][0], "memory": found["memory"]}
            log(f"scenes: {scene}, {reader}: {row['mvalues_per_cpu_second']:.1f} million values a second")
            yield {"kind": "scenes", "round": number, **row}


def hold_imported(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    folder = SCRATCH / "work" / "imported"
    for name in [*network_summaries(), *filter(is_installed, ("monai", "segmentation_models_pytorch"))]:
        found = run([sys.executable, "-m", "benchmarks.imported", name, "--folder", str(folder)])
        for row in found["rows"]:
            log(f"imported: {name}, {row['format']}: {row['differing']} of {row['pixels']} labels differ")
            yield {"kind": "imported", **row}


def hold_scale(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    command = [sys.executable, "-m", "benchmarks.scale", "--out", str(SCRATCH / "work" / "scale")]
    for part, counts in asked.counts.items():
        for count in counts:
            row = run([*command, part, "--count", str(count)], sample_seconds=0.2)
            log(f"scale: {part} {count}, {row['seconds']}, driver {row['memory']['largest'] / 1e6:.0f} MB")
            yield {"kind": part, **row}


def hold_steps(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    command = [sys.executable, "-m", "benchmarks.steps", "--out", str(SCRATCH / "work" / "steps")]
    for number in range(asked.rounds):
        pyramid = ["--reduced", "4", "16"]
        sides = (2 * asked.side, []), (2 * asked.side, pyramid), (4 * asked.side, pyramid)
        for (side, reduced), way in product(sides, ([], ["--direct"])):
            row = run([*command, "--side", str(side), *reduced, *way])
            costs = row["cpu_seconds_per_gigapixel"]
            kind = "staged" if row["staged"] else "without staging"
            log(f"steps: {side} px, {row['levels']} levels, {kind}, {sum(costs.values()):.1f} in all: {costs}")
            yield {"kind": "steps", "round": number, **row}


def hold_exports(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    yield from (row for row in measured_before(asked, "exports") if row["subject"] not in asked.subjects)
    yield from exports.hold(SCRATCH / "work", asked.subjects, asked.labels, asked.rounds, log)


def hold_polygons(asked: argparse.Namespace) -> Iterator[contest.Figures]:
    yield from exports.hold_polygons(SCRATCH / "work", asked.polygons, log)


def measured_before(asked: argparse.Namespace, part: str) -> list[contest.Figures]:
    """The rows of a part that are there already."""
    path = asked.results / f"{part}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []


def save(part: str, asked: argparse.Namespace, rows: Callable[[argparse.Namespace], Iterator[contest.Figures]]) -> None:
    """Measure a part and write its figures after each row, so that what was measured is never lost."""
    facts = {
        "machine": machine.describe(),
        "load_before": machine.load(),
        "tissue": tissue()[0],
        "side_px": asked.side,
        "peers": {} if part != "contest" else peer_versions(),
    }
    found: list[contest.Figures] = []
    asked.results.mkdir(parents=True, exist_ok=True)
    for row in rows(asked):
        found.append(row)
        text = json.dumps({**facts, "rows": found}, indent=1)
        (asked.results / f"{part}.json").write_text(text + "\n", encoding="utf-8")


def peer_versions() -> dict[str, str]:
    """Installed versions of the peers' packages; a peer that can't be installed has its reason instead."""
    found: dict[str, str] = {}
    for peer in PEERS:
        try:
            peer.environment.ensure()
            found[peer.package] = peer.environment.versions().get(peer.package, "absent")
        except PeerError as error:
            found[peer.package] = str(error)
    return found


def report(results: Path) -> None:
    """The table, and the plot where matplotlib can be installed."""
    (results / "README.md").write_text(table.write(results), encoding="utf-8")
    if results == RESULTS and (results / "scenes.json").is_file():
        page = json.loads((results / "scenes.json").read_text(encoding="utf-8"))
        scene_rates.tell(page, ROOT / "docs" / "scenes.md")
    try:
        run([str(PLOT.ensure()), "-m", "benchmarks.plot", str(results)])
    except (PeerError, MeasurementError) as error:
        log(f"no plot: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run overtile's benchmarks.")
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--side", type=int, default=4096, help="side of the contest's slide in px")
    parser.add_argument("--kinds", nargs="*", default=["limit", "overtile", "peers"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", type=int, nargs="*", default=[*SIDES_PX], help="sides of the growth's slides")
    parser.add_argument("--tiles", type=int, default=100_000, help="tiles of the driver's benchmark")
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64], help="of the driver's curve")
    parser.add_argument("--slides", type=int, default=24, help="slides of the archive's benchmark")
    parser.add_argument("--labels", type=int, default=16_384, help="side of the scene that is exported in px")
    parser.add_argument("--subjects", nargs="*", default=[*exports.SUBJECTS], help="what is exported")
    parser.add_argument("--polygons", type=int, default=1_000_000, help="objects of the mask of discs")
    parser.add_argument("--scene-side", type=int, default=3072, help="side of the scenes that are read in px")
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    asked.counts = scale.COUNTS
    (SCRATCH / "work").mkdir(parents=True, exist_ok=True)
    if machine.load() > 0.5:
        log(f"the machine is not idle (load {machine.load():.1f}): figures will be disturbed")
    holders = {
        "contest": hold_contest,
        "large": hold_large,
        "growth": hold_growth,
        "driver": hold_driver,
        "startup": hold_startup,
        "archive": hold_archive,
        "scale": hold_scale,
        "steps": hold_steps,
        "exports": hold_exports,
        "polygons": hold_polygons,
        "measuring": hold_measuring,
        "scenes": hold_scenes,
        "imported": hold_imported,
    }
    for part in asked.parts or PARTS:
        if part in holders:
            save(part, asked, holders[part])
    report(asked.results)


if __name__ == "__main__":
    main()
