"""Ray in this process's own keeping: on localhost, gone with it, and closed to the machine's other users."""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil
import ray
from ray._private import ray_constants

from flows.ray_sessions import sweep_sessions
from unet_core.allocator import ENVIRONMENT as MEMORY_ENVIRONMENT

OBJECT_STORE_BYTES = 128 * 2**20  # indices go out and small results come back: no pixel passes through it


def start_ray(workers: int | None) -> None:
    """Start a cluster of one node, with one CPU per worker.

    Whoever may speak to a Ray cluster runs code as its user. So it listens on localhost only, asks for a token that no
    file holds, and has its sockets and logs in a folder of the user's own. What the environment says wins.
    """
    for name, value in MEMORY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # workers inherit it; so they need no environment of their own
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        # Ray would write its token into a file that others can read wherever the home directory lets them in.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with _really_local():
        _init(workers)


def _init(workers: int | None) -> None:
    own = None if "RAY_TMPDIR" in os.environ else private_folder() / "ray"
    if own is not None:
        sweep_sessions(own)
    ray.init(
        address="local",  # never a cluster that happens to run on this machine
        num_cpus=workers or psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(own) if own is not None else None,
    )


@contextmanager
def _really_local() -> Generator[None]:
    """Keep Ray from taking the machine's address on the network where it is told 127.0.0.1.

    `resolve_ip_for_localhost` in ray/_private/services.py does so unless this switch is off.
    """
    switches, name = ray_constants.__dict__, "ENABLE_RAY_CLUSTER"
    before = switches[name]
    switches[name] = False
    try:
        yield
    finally:
        switches[name] = before


def private_folder() -> Path:
    """A folder that only this user can enter: Ray lets everybody write into its own, code for its workers included."""
    folder = Path(tempfile.gettempdir()) / f"overtile-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix="overtile-"))  # somebody else has made it first
