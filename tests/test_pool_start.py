"""A cluster that doesn't come up: told at once, never waited for."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from flows.errors import PoolError
from flows.pool import Pool


@pytest.mark.parametrize("begun", [True, False])
def test_a_node_that_does_not_come_up_in_time_is_told(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    def overloaded(*_: Any, **__: Any) -> None:
        raise Exception("The current node timed out during startup")  # what Ray itself raises

    monkeypatch.setattr(ray, "init", overloaded)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    pool = Pool(1)
    with pytest.raises(PoolError, match="timed out during startup"), pool.begin() if begun else pool:
        pass
