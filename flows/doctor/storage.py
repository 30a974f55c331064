"""Checks of storage: that runs can be written, how fast, and the memory and space of a plan for one image."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from flows.config.run import SegmentConfig
from flows.doctor.checks import Check, DoctorConfig
from flows.pool.cores import usable_cores
from flows.pool.free_memory import free_memory_bytes
from flows.run.custom_model import as_bundle
from flows.run.intended import make_plan, smallest_good_core, tile_memory
from flows.run.model import find_footprint
from flows.run.preflight import check_fit, requirements_of
from tiling.errors import AccessError, ChangedError, TilingError
from tiling.geometry import Box
from tiling.plan import TileMemory, TilePlan
from tiling.selection.choose_view import choose_view, which_image
from tiling.source import ImageSource, open_source
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, write_atomic
from tiling.view import View
from unet_core.bundles.bundle import load_bundle
from unet_core.errors import UnetCoreError

T = TypeVar("T")

PROBE_BYTES = 16 * 2**20
SMALL_FILES = 10
ANSWER_SECONDS = 30.0
SLOW_BYTES_PER_SECOND = 20 * 2**20
SAMPLE_PX = 1024
AHEAD_TILES = 8  # staged ahead per worker, see flows.pool.pool
MIB, GIB = 2**20, 2**30


def check_storage(place: Place) -> Iterator[Check]:
    """Write, read back and delete; an object store must also keep the promise that its locks are made of."""
    name = f"storage {place}"
    if isinstance(place, ObjectPath):
        yield _in_time(name, lambda: _probe_store(name, place))
        return
    folder = next(each for each in (place.absolute(), *place.absolute().parents) if each.exists())
    if not folder.is_dir():
        yield Check.missing(name, f"{folder} is no folder", "give another --out")
        return
    yield _in_time(name, lambda: _probe_folder(name, folder))


def _in_time(name: str, probe: Callable[[], Check]) -> Check:
    found = answered(probe)
    remedy = "see whether it is mounted and reachable (mount, AWS_ENDPOINT_URL, network policy)"
    return found[0] if found else Check.missing(name, f"no answer within {ANSWER_SECONDS:g} s", remedy)


def answered(probe: Callable[[], T]) -> list[T]:
    """Answer of a probe, or nothing: a dead network file system or store never answers, nobody waits for ever."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(probe()), daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return found


def _probe_folder(name: str, folder: Path) -> Check:
    probe = folder / f".overtile-doctor-{uuid4().hex}"
    data = os.urandom(PROBE_BYTES)
    free = shutil.disk_usage(folder).free
    try:
        probe.mkdir()
        start = time.perf_counter()
        write_atomic(probe / "large", data)
        written = time.perf_counter() - start
        start = time.perf_counter()
        for number in range(SMALL_FILES):
            write_atomic(probe / str(number), b"x")
        small = (time.perf_counter() - start) / SMALL_FILES
        _forget(probe / "large")
        start = time.perf_counter()
        same = (probe / "large").read_bytes() == data
        read = time.perf_counter() - start
    except (OSError, TilingError) as error:
        remedy = f"make {folder} writable for this user and leave it room, or give another --out"
        return Check.missing(name, _reason(error), remedy)
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    return _judge(name, same, written, read, f"{1000 * small:.1f} ms per small file, {free / GIB:.1f} GiB free")


def _probe_store(name: str, place: ObjectPath) -> Check:
    probe = place / f".overtile-doctor-{uuid4().hex}"
    data = os.urandom(PROBE_BYTES)
    try:
        start = time.perf_counter()
        probe.write_bytes(data)
        written = time.perf_counter() - start
        start = time.perf_counter()
        same = probe.read_bytes() == data
        read = time.perf_counter() - start
        start = time.perf_counter()
        is_listed = any(found == probe for found in place.iterdir())
        listed = time.perf_counter() - start
        keeps_promise = is_listed and _refuses_second(probe)
        probe.unlink()
    except AccessError as error:
        remedy = "set the store's credentials in the environment, with leave to get, put, list and delete below --out"
        return Check.missing(name, _reason(error), remedy)
    except (OSError, TilingError) as error:
        return Check.missing(name, _reason(error), "check the bucket's name, AWS_ENDPOINT_URL and the network")
    if not keeps_promise:
        remedy = "use a store with conditional puts (If-None-Match), as S3, Google's and Azure's are"
        return Check.missing(
            name, "an object that must only be created was replaced: two drivers could share a run", remedy
        )
    return _judge(name, same, written, read, f"{1000 * listed:.0f} ms per listing")


def _refuses_second(probe: ObjectPath) -> bool:
    """True if the store refuses to create what is there already."""
    try:
        probe.put(b"second", only_new=True)
    except ChangedError:
        return True
    return False


def _judge(name: str, same: bool, written: float, read: float, more: str) -> Check:
    rates = PROBE_BYTES / max(written, 1e-9), PROBE_BYTES / max(read, 1e-9)
    found = f"writes {rates[0] / MIB:.0f} MiB/s, reads {rates[1] / MIB:.0f} MiB/s, {more}"
    if not same:
        return Check.missing(name, f"{found}; what was read is not what was written", "replace this storage")
    if min(rates) < SLOW_BYTES_PER_SECOND:
        remedy = f"workers will wait below {SLOW_BYTES_PER_SECOND / MIB:.0f} MiB/s: use storage that is nearer"
        return Check.warning(name, found, remedy)
    return Check.ok(name, found)


def _forget(path: Path) -> None:
    """Ask the system to read the file from the disk again."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def check_image(config: DoctorConfig) -> Iterator[Check]:
    """Read from the image, and hold the plan for it against this machine's memory and the disk."""
    assert config.image is not None
    try:
        with open_source(config.image, View(series=config.series)) as source:
            yield _reading(source, which_image(source, config.series))
            yield from _plan(config)
    except (TilingError, OSError) as error:
        yield Check.missing(f"image {config.image}", _reason(error), "give an image that 'overtile segment' can open")


def _reading(source: ImageSource, which: str) -> Check:
    """Decode a square from the middle of the finest level."""
    level = source.levels[0]
    y0, x0 = max(0, (level.height - SAMPLE_PX) // 2), max(0, (level.width - SAMPLE_PX) // 2)
    box = Box(y0, x0, min(level.height, y0 + SAMPLE_PX), min(level.width, x0 + SAMPLE_PX))
    start = time.perf_counter()
    source.read(0, box)
    rate = box.area / 1e6 / max(time.perf_counter() - start, 1e-9)
    found = f"{level.height} x {level.width} px, decodes {rate:.1f} MPix/s in one process" + (which and f"; {which}")
    return Check.ok(f"image {source.path}", found)


def check_model(model: str) -> Check:
    """Load a model for which there is no image to plan for."""
    name = f"model {model}"
    try:
        with as_bundle(model) as folder:
            bundle = load_bundle(folder)
    except (UnetCoreError, OSError) as error:
        return Check.missing(name, _reason(error), "give a --model that 'overtile models show' can show")
    return Check.ok(name, f"{bundle.card.name}, {len(bundle.card.bands)} bands, digest {bundle.digest[:12]}")


def _plan(config: DoctorConfig) -> Iterator[Check]:
    """Memory and space as the run itself would find them, for the core that is used where none is measured."""
    assert config.image is not None
    options = SegmentConfig(image=config.image, out=config.out or Path("run"), model=config.model, series=config.series)
    workers = config.workers or usable_cores()
    try:
        with as_bundle(config.model) as folder:
            bundle = load_bundle(folder)
        choice = choose_view(config.image, options.view_request(), requirements_of(bundle.card))
        with open_source(config.image, choice.view) as seen:
            check_fit(seen, bundle.card)
            found = find_footprint(bundle, options)
            plan = make_plan(seen, choice.level, smallest_good_core(found), found)
        memory = tile_memory(plan, bundle, "float32")
    except (TilingError, UnetCoreError, ValueError) as error:
        yield Check.missing(f"model {config.model}", _reason(error), "give a --model that is made for such images")
        return
    yield _memory(plan, memory, workers)
    if isinstance(config.out, Path):
        yield _space(plan, config.out, workers)


def _memory(plan: TilePlan, memory: TileMemory, workers: int) -> Check:
    free, needed = free_memory_bytes(), workers * memory.worker_bytes
    found = (
        f"{workers} workers take {needed / GIB:.1f} GiB for cores of {plan.core_px} px, {free / GIB:.1f} GiB are free"
    )
    if needed > free:
        fit = int(free // memory.worker_bytes)
        remedy = f"--workers {fit}" if fit else "a smaller --core, or a machine with more memory"
        return Check.missing("memory", found, remedy)
    return Check.ok("memory", found)


def _space(plan: TilePlan, out: Path, workers: int) -> Check:
    """Check for the room that a run takes at most: uncompressed labels, the pyramid, and what is staged ahead."""
    folder = next(each for each in (out.absolute(), *out.absolute().parents) if each.is_dir())
    height, width = plan.mask.shape
    read_height, read_width = plan.read_shape
    staged = AHEAD_TILES * workers * read_height * read_width * 3
    needed, free = staged + height * width * 4 // 3, shutil.disk_usage(folder).free
    found = f"{needed / GIB:.2f} GiB at most for {plan.count} tiles, {free / GIB:.2f} GiB are free"
    if free < staged:
        return Check.missing("space", found, "make room, or give another --out")
    if free < needed:
        remedy = "labels are compressed several times as a rule; watch it, or make room"
        return Check.warning("space", found, remedy)
    return Check.ok("space", found)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
