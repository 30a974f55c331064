"""A cluster that doesn't come up: reported at once, never waited for."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import ray

from flows.errors import PoolError
from flows.pool.pool import Pool


@pytest.mark.parametrize("begun", [True, False])
def test_a_node_that_does_not_come_up_in_time_is_told(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    def overloaded(*_: Any, **__: Any) -> None:
        raise Exception("The current node timed out during startup")  # what Ray itself raises

    # A token of its own, which goes with the test: the one that is made stays in the environment, and a Ray that this
    # process starts later would ask for it, while the process itself still sends the one that it has sent before.
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.setattr(ray, "init", overloaded)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    pool = Pool(1)
    with pytest.raises(PoolError, match="timed out during startup"), pool.begin() if begun else pool:
        pass


STOPPED_BESIDE_RAY = """
import ctypes, os, signal
from contextlib import nullcontext
from flows.errors import StoppedError
from flows.pool import cluster
from flows.pool.pool import Pool
from flows.lifecycle.stopping import sigterm_as_error

def installed():
    action = ctypes.create_string_buffer(512)
    ctypes.CDLL(None).sigaction(signal.SIGTERM, None, action)
    return action.raw[:8]

keep, cluster.keep_sigterm = cluster.keep_sigterm, nullcontext  # puts it back a little later, which may be too late
try:
    with sigterm_as_error():
        own = installed()
        try:
            with Pool(1).begin():
                cluster.keep_sigterm = keep
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
        finally:
            assert installed() == own, "Ray's end took it away"
except StoppedError as error:
    print(error.signal_number, "alarm in", signal.alarm(0))
"""


def test_ray_does_not_abort_what_sigterm_ends_in_order() -> None:
    """Its own handler would leave three seconds, by an alarm."""
    command = [sys.executable, "-c", STOPPED_BESIDE_RAY]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert (ended.returncode, ended.stdout.split("\n")[0]) == (0, "15 alarm in 0"), ended.stderr
    assert "SIGTERM received" not in ended.stderr
