"""The contest: the machine's limit, overtile and its peers, in turns on one slide.

One round measures every contestant once, each in processes of its own; the next round takes them in the opposite
order, so that a machine that slows down or is disturbed treats all alike. What is published are medians.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from benchmarks.peers.environments import PEERS, Peer, PeerError
from benchmarks.process import Figures, MeasurementError, run
from benchmarks.reference import differing, name_of
from benchmarks.slide import write_slide
from unet_core.bundles.bundle import load_bundle

PRECISIONS = ("float32", "bfloat16")
# Core in px, and whether tiles are staged; a small core takes less memory, and one of 2048 px goes in strips.
WAYS = {
    "float32": ((1024, True), (1024, False), (2048, True)),
    "bfloat16": ((512, True), (1024, True), (1024, False), (2048, True)),
}
# Of slides that no whole pass fits: it would take 350 bytes per pixel.
WAYS_OF_LARGE = {
    "float32": ((2048, True),),
    "bfloat16": ((1024, True), (1024, False), (2048, True)),
}
WHOLE_UP_TO_PX, WARM_UP_PX = 4096, 4096
# Processes, threads of each, side of the tiles. One process of two threads is slower: 3.93 for 4.11 MPix/s in bfloat16.
LIMITS = ((2, 1, 1024),)
MODEL = "nuclei-small"
THREADS = 2


@dataclass(frozen=True, slots=True)
class Contestant:
    """One thing to measure: `kind` and `facts` go into its row of figures."""

    key: str
    kind: str  # limit, step, overtile or peer
    facts: Figures
    command: list[str]
    labels: Path | None = None  # npy file or run folder
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """Where the contest takes place.

    `reference` is the labels of one pass over the whole slide, None where it is too large for one; then `warm_up` is
    the slide that pools begin with.
    """

    folder: Path
    slide: Path
    reference: Path | None
    warm_up: Path | None = None

    @property
    def ways(self) -> dict[str, tuple[tuple[int, bool], ...]]:
        return WAYS_OF_LARGE if self.reference is None else WAYS


def prepare(folder: Path, side_px: int) -> Ground:
    """The slide, and the labels of one pass over the whole of it where it is small enough."""
    slide = write_slide(folder / f"slide-{side_px}.svs", side_px)
    if side_px > WHOLE_UP_TO_PX:
        return Ground(folder, slide, None, write_slide(folder / f"slide-{WARM_UP_PX}.svs", WARM_UP_PX))
    reference = folder / name_of(slide, load_bundle(MODEL).digest)
    if not reference.is_file():
        run([sys.executable, "-m", "benchmarks.reference", str(slide), str(reference), "--model", MODEL])
    return Ground(folder, slide, reference)


def contestants(ground: Ground, wanted: Iterable[str], log: Callable[[str], None]) -> list[Contestant]:
    """All contestants of the wanted kinds; a peer that can't be installed is named and left out."""
    kinds = set(wanted)
    found: list[Contestant] = []
    if "limit" in kinds:
        found += [*_limits()]
    if "overtile" in kinds:
        found += [*_overtile(ground)]
    if "peers" in kinds:
        for peer in PEERS:
            try:
                peer.environment.ensure()
            except PeerError as error:
                log(f"{peer.label} is left out: {error}")
                found.append(replace(_peer(ground, peer), kind="absent", command=[]))
            else:
                found.append(_peer(ground, peer))
    return found


def hold(ground: Ground, found: list[Contestant], rounds: int, log: Callable[[str], None]) -> Iterator[Figures]:
    """Measure all in turns; yields a row of figures per measurement, as soon as there is one."""
    for number in range(rounds):
        for contestant in found if number % 2 == 0 else reversed(found):
            if contestant.kind == "absent":
                continue
            row: Figures = {"key": contestant.key, "kind": contestant.kind, "round": number, **contestant.facts}
            try:
                row |= run(contestant.command, threads=contestant.threads, sample_seconds=1.0)
                if contestant.labels is not None and ground.reference is not None:
                    row["differing"] = differing(ground.reference, contestant.labels)
            except MeasurementError as error:
                row["error"] = str(error)
            finally:
                _remove(contestant.labels)
            log(f"round {number + 1}: {contestant.key}: {row.get('pixels_per_second', 0.0) / 1e6:.2f} MPix/s")
            yield row


def _limits() -> Iterator[Contestant]:
    for precision, (processes, threads, tile_px) in product(PRECISIONS, LIMITS):
        yield _bare("limit", precision, processes, threads, tile_px, "predictor")


def _bare(kind: str, precision: str, processes: int, threads: int, tile_px: int, form: str) -> Contestant:
    key = f"{form} {precision} {processes}x{threads} {tile_px}"
    command = [sys.executable, "-m", "benchmarks.limit", "--precision", precision, "--tile", str(tile_px)]
    command += ["--processes", str(processes), "--threads", str(threads), "--form", form, "--model", MODEL]
    return Contestant(key, kind, {}, command, threads=threads)


def _overtile(ground: Ground) -> Iterator[Contestant]:
    for precision, (core_px, staging) in ((p, way) for p in PRECISIONS for way in ground.ways[p]):
        key = f"overtile {precision} {core_px} {'staged' if staging else 'direct'}"
        out = ground.folder / key.replace(" ", "-")
        command = [sys.executable, "-m", "benchmarks.pipeline", str(ground.slide), "--out", str(out)]
        command += ["--precision", precision, "--core", str(core_px), "--model", MODEL]
        command += ["--workers", str(THREADS), "--staging" if staging else "--no-staging"]
        command += ["--warm-up", str(ground.warm_up)] if ground.warm_up is not None else []
        yield Contestant(
            key, "overtile", {"precision": precision, "core_px": core_px, "staging": staging}, command, out
        )


def _peer(ground: Ground, peer: Peer) -> Contestant:
    labels = ground.folder / f"{peer.key}.npy"
    command = [str(peer.environment.python), "-m", f"benchmarks.peers.{peer.module}", str(ground.slide), str(labels)]
    command += ["--tile", str(peer.tile_px), "--model", MODEL, "--threads", str(THREADS)]
    facts: Figures = {"label": peer.label, "note": peer.note}
    return Contestant(peer.key, "peer", facts, command, labels, THREADS)


def _remove(labels: Path | None) -> None:
    if labels is None:
        return
    shutil.rmtree(labels, ignore_errors=True)
    shutil.rmtree(labels.with_suffix(".tiatoolbox"), ignore_errors=True)
    if labels.is_file():
        labels.unlink()
