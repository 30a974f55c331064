"""This machine: interpreter, packages, device, clock, limits, memory."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from flows.doctor.checks import Check, DoctorConfig
from flows.lifecycle.environment import has_cluster
from flows.pool.cores import usable_cores
from flows.pool.free_memory import free_memory_bytes
from tiling.escaping import word
from unet_core.inference import machine

PYTHON_WANTED = (3, 11)
FILES_WANTED, FILES_NEEDED = 65_536, 1_024
SHARED_MEMORY_BYTES = 128 * 2**20  # the embedded object store
TEMPORARY_BYTES = 2**30
RAY_REFUSES_ABOVE = 0.95  # Ray's own threshold for the disk of its temporary folder
MIB, GIB = 2**20, 2**30
_TIME_ERROR = 5  # adjtimex(2): the clock isn't synchronised


def check_machine(config: DoctorConfig) -> Iterator[Check]:
    """Everything that needs no other machine."""
    yield _python()
    yield _packages()
    yield from _devices()
    yield _clock()
    yield _open_files()
    yield _shared_memory()
    yield _temporary_folder()
    if config.image is None:
        yield _memory(config.workers)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON_WANTED:
        wanted = ".".join(map(str, PYTHON_WANTED))
        return Check.missing("python", found, f"install Python {wanted} or newer and set the environment up with it")
    if platform.system() != "Linux":
        return Check.warning("python", found, "use Linux: nothing else is tested")
    return Check.ok("python", found)


def _packages() -> Check:
    """Compare what is installed with what overtile asks for."""
    wanted = [Requirement(line) for line in requires("overtile") or []]
    extra = "cluster" if has_cluster() else ""
    wanted = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": extra})]
    faults: dict[str, str] = {}
    for each in wanted:
        extras = f"[{','.join(sorted(each.extras))}]" if each.extras else ""
        asked = f"{each.name}{extras}{each.specifier}"
        try:
            found = version(each.name)
        except PackageNotFoundError:
            faults[asked] = f"{each.name} is not installed"
            continue
        if not each.specifier.contains(found, prereleases=True):
            faults[asked] = f"{each.name} {found} is installed, {each.specifier} is needed"
    if faults:
        remedy = f"{word(sys.executable)} -m pip install {' '.join(map(word, faults))}"
        return Check.missing("packages", "; ".join(faults.values()), remedy)
    return Check.ok("packages", f"overtile {version('overtile')} with all {len(wanted)} that it needs")


def _devices() -> Iterator[Check]:
    found = machine.detect_machine()
    cores = usable_cores()
    text = f"{cores} cores, {found.vectors}, torch {found.torch}"
    if found.vectors == "DEFAULT":
        yield Check.warning("processor", f"{text}: no vector instructions", "use a processor with AVX2 or better")
    elif found.lacks_bfloat16:
        yield Check.ok("processor", f"{text}; no native bfloat16, float32 it is")
    else:
        yield Check.ok("processor", f"{text}; native bfloat16 (--precision auto or bfloat16)")
    for gpu in found.accelerators:
        name = f"{gpu.name}, {gpu.memory_bytes / GIB:.0f} GiB"
        if gpu.failure:
            remedy = "match NVIDIA's driver and torch's CUDA build: see what 'nvidia-smi' says"
            yield Check.missing("gpu", f"{name}: {gpu.failure}", remedy)
        else:
            yield Check.ok("gpu", f"{name}, CUDA {found.cuda}")
    if not found.accelerators and Path("/dev/nvidiactl").exists():
        remedy = "install the CUDA build of torch of the same version, and check 'nvidia-smi'"
        yield Check.missing("gpu", f"this machine has an NVIDIA device and torch {found.torch} sees none", remedy)


def _clock() -> Check:
    """Check that the kernel holds its clock to be synchronised; a container may not be allowed to ask."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, which is shorter; modes 0 only reads
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if state == _TIME_ERROR:
        remedy = "turn NTP on (timedatectl set-ntp true): schedules and the times in ledgers follow this clock"
        return Check.warning("clock", "not synchronised", remedy)
    return Check.ok("clock", "synchronised" if state >= 0 else "not known here whether it is synchronised")


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    remedy = f"ulimit -n {FILES_WANTED} before the command, or LimitNOFILE={FILES_WANTED} in its systemd unit"
    if soft < FILES_NEEDED:
        return Check.missing("open files", f"at most {soft}, Ray needs {FILES_NEEDED} and more", remedy)
    # Ray raises the soft limit up to the hard one by itself.
    if max(soft, hard) < FILES_WANTED:
        return Check.warning("open files", f"at most {soft} (hard {hard}), {FILES_WANTED} are advised", remedy)
    return Check.ok("open files", f"at most {soft} (hard {hard})")


def _shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check.missing("shared memory", f"{folder} is absent", "mount a tmpfs there")
    free = psutil.disk_usage(str(folder)).free
    if free < SHARED_MEMORY_BYTES:
        found = f"{free / MIB:.0f} MiB free in {folder}, {SHARED_MEMORY_BYTES / MIB:.0f} are needed"
        remedy = "docker run --shm-size 256m; in Kubernetes an emptyDir of medium Memory; else remount it larger"
        return Check.warning("shared memory", f"{found}; Ray falls back to files, slowly", remedy)
    return Check.ok("shared memory", f"{free / MIB:.0f} MiB free in {folder}")


def _temporary_folder() -> Check:
    """Check the disk on which Ray keeps its sockets and logs: it refuses to work on one that is nearly full."""
    folder = Path(os.environ.get("RAY_TMPDIR") or "/tmp")
    remedy = f"free space there, or set RAY_TMPDIR to a short path with {TEMPORARY_BYTES / GIB:.0f} GiB free"
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
    except OSError as error:
        return Check.missing("temporary folder", f"{folder} can't be written ({error.strerror})", remedy)
    usage = psutil.disk_usage(str(folder))
    found = f"{usage.free / GIB:.1f} GiB free in {folder}"
    used = 1 - usage.free / usage.total
    if used > RAY_REFUSES_ABOVE:
        return Check.missing("temporary folder", f"{found}: {used:.0%} used, Ray refuses above 95 %", remedy)
    if usage.free < TEMPORARY_BYTES:
        return Check.warning("temporary folder", found, remedy)
    return Check.ok("temporary folder", found)


def _memory(workers: int | None) -> Check:
    """Room for the workers themselves; what their tiles take is known with an image and a model only."""
    from flows.run.intended import WORKER_FIXED_BYTES

    count = workers or usable_cores()
    free, needed = free_memory_bytes(), count * WORKER_FIXED_BYTES
    found = f"{free / GIB:.1f} GiB free, {count} workers take {needed / GIB:.1f} GiB before their first tile"
    if free < needed:
        fit = max(1, int(free // WORKER_FIXED_BYTES))
        return Check.missing("memory", found, f"--workers {fit}, or a machine with more memory")
    return Check.ok("memory", found)
