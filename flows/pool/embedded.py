"""Ray in this process's own keeping: on localhost, gone with it, and closed to the machine's other users."""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import ray
from ray._private import ray_constants
from ray._private.node import Node

from flows.errors import ConfigError
from flows.pool.cores import usable_cores
from flows.pool.ray_processes import watched_start
from flows.pool.ray_sessions import sweep_sessions
from flows.pool.socket_folder import short_folder
from unet_core.inference.allocator import ENVIRONMENT as MEMORY_ENVIRONMENT

_UNUSED = ("start_monitor", "start_api_server")
"""Methods of Ray's node that start processes of which nothing here makes use."""

STARTS, TOO_SLOW = 3, ("timed out during startup", "Failed to start GCS")
"""Ray gives its processes half a minute, which on a busy machine is too little; giving up would lose a night."""
OBJECT_STORE_BYTES = 128 * 2**20  # indices go out and small results come back: no pixel passes through it


def start_ray(workers: int | None) -> None:
    """Start a cluster of one node, with one CPU per worker.

    Whoever may speak to a Ray cluster runs code as its user. So it listens on localhost only, asks for a token that no
    file holds, and has its sockets and logs in a folder of the user's own. What the environment says wins.
    """
    for name, value in MEMORY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # workers inherit it; so they need no environment of their own
    # Ray shows its metrics, with the names of runs, to whoever asks at their port, and asks nobody for the token there.
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    # Ray ends processes of tasks that have been idle for a second; those of the next slide would load all anew.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        # Ray would write its token into a file that others can read wherever the home directory lets them in.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with _really_local(), _without_monitors():
        for left in reversed(range(STARTS)):
            try:
                with watched_start():
                    _init(workers)
            except Exception as error:  # (Ray's own has no kind)
                if not left or not any(each in str(error) for each in TOO_SLOW):
                    raise
                _end_what_started()
            else:
                return


def _init(workers: int | None) -> None:
    own = None if "RAY_TMPDIR" in os.environ else private_folder() / "ray"
    if own is not None:
        sweep_sessions(own)
    ray.init(
        address="local",  # never a cluster that happens to run on this machine
        num_cpus=workers or usable_cores(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(own) if own is not None else None,
    )


def _end_what_started() -> None:
    """End the processes of a Ray that came to nothing; nobody else knows of them."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(part.startswith(os.path.dirname(ray.__file__)) for part in child.cmdline()):  # noqa: PTH120
                child.kill()


@contextmanager
def _really_local() -> Generator[None]:
    """Keep Ray from taking the machine's address on the network where it is given 127.0.0.1.

    `resolve_ip_for_localhost` in ray/_private/services.py does so unless this switch is off.
    """
    switches, name = ray_constants.__dict__, "ENABLE_RAY_CLUSTER"
    before = switches[name]
    switches[name] = False
    try:
        yield
    finally:
        switches[name] = before


@contextmanager
def _without_monitors() -> Generator[None]:
    """Keep Ray from starting its autoscaler and the server of its dashboard.

    Nothing scales on one machine, and no dashboard is asked for. Both are Python processes that load for 1.5 s of a
    processor while tile actors load; `ray.init` has no switch for them.
    """
    # A Ray that calls them otherwise starts all it has, as it does everywhere else.
    before = {name: getattr(Node, name) for name in _UNUSED if hasattr(Node, name)}
    for name in before:
        setattr(Node, name, _nothing)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


def _nothing(*_: object, **__: object) -> None:
    """In the place of what starts a process that nobody uses."""


def private_folder() -> Path:
    """A folder that only this user can enter: Ray lets everybody write into its own, code for its workers included.

    Its name is one that others can guess, and so take first; then it is another, which nobody can.

    Raises:
        ConfigError: none can be made.
    """
    try:
        above = short_folder()
        return _own(above / f"overtile-{os.getuid()}") or Path(tempfile.mkdtemp(prefix="overtile-", dir=above))
    except OSError as error:
        raise ConfigError(
            f"no folder for Ray's sockets can be made among temporary files ({error.strerror or error}: "
            f"{error.filename or tempfile.tempdir}): set TMPDIR, or RAY_TMPDIR, to a short path of your own with room"
        ) from error


def _own(folder: Path) -> Path | None:
    """The folder, made where there is none; None where others own it, may write there, or it is no folder."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        return None
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    return folder
