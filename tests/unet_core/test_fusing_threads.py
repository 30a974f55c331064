"""A network that is traced in one thread leaves those alone that other threads call meanwhile."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

from unet_core.bounds import inferred
from unet_core.inference.fusing import fold


class _Waiting(nn.Module):
    """Stands still while it is traced, until it may go on."""

    def __init__(self, traced: threading.Event, go_on: threading.Event) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)
        self._events = traced, go_on

    def __deepcopy__(self, memo: object) -> _Waiting:
        return self

    def forward(self, x_NCHW: Tensor) -> Tensor:
        traced, go_on = self._events
        traced.set()
        assert go_on.wait(10)
        return self.conv(x_NCHW)


def test_other_threads_compute_and_record_while_a_network_is_traced() -> None:
    traced, go_on = threading.Event(), threading.Event()
    other = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    tile = torch.ones(1, 3, 16, 16)
    expected, found = other(tile), list[nn.Module]()
    tracing = threading.Thread(target=lambda: found.append(fold(_Waiting(traced, go_on))))
    tracing.start()
    try:
        assert traced.wait(10)
        assert torch.equal(other(tile), expected)
        assert inferred(other, 3).stride == (1, 1)
    finally:
        go_on.set()
        tracing.join()
    assert found[0](tile).shape == (1, 2, 16, 16)
