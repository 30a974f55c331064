"""A refusal as people meet it: one line that says why, and nothing of a secret in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tiling.errors import TilingError


def expect_refused(work: Callable[[], Any], message: str) -> None:
    """Hold that work is refused on one line with this message, without the word `canary` that stands for a secret."""
    with pytest.raises(TilingError) as error:
        work()
    text = str(error.value)
    assert message in text
    assert "\n" not in text
    assert "canary" not in text
