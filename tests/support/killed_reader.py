"""A process of GDAL's that is killed in the middle of a read, whatever the order in which the system runs things."""

from __future__ import annotations

import os
import signal

import pytest

from tiling.sources.gdal import process


def kill_while_it_reads(pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill a process once it is asked for something; stopped until then, it gives no answer before."""
    receive = process.GdalProcess._receive_some  # pyright: ignore[reportPrivateUsage]

    def receive_of_killed(self: process.GdalProcess, until: float) -> None:
        if self.pid == pid:
            os.kill(pid, signal.SIGKILL)
        receive(self, until)

    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(process.GdalProcess, "_receive_some", receive_of_killed)
