"""What the benchmark of the start marks must be there: it would measure nothing of a step that is called otherwise."""

from __future__ import annotations

from importlib import import_module

import pytest

from benchmarks.marks import STEPS


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_marked_is_there(step: str) -> None:
    module, _, name = STEPS[step].partition(":")
    found = import_module(module)
    for each in name.split("."):
        found = getattr(found, each)
    assert callable(found)
