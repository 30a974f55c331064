"""One thread of torch, for networks so small that two are slower, and much slower where other work shares the cores."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
import torch


@contextmanager
def one_thread() -> Generator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def on_one_thread() -> Iterator[None]:
    """The same around a test: `pytestmark = pytest.mark.usefixtures("on_one_thread")`."""
    with one_thread():
        yield
