"""Phases of a slide follow each other in one way, and no step can move a slide in another."""

from __future__ import annotations

import pytest

from flows.nightly.phase import Phase


@pytest.mark.parametrize("before", Phase)
@pytest.mark.parametrize("after", Phase)
def test_a_slide_moves_in_one_direction(before: Phase, after: Phase) -> None:
    order = {Phase.NEW: 0, Phase.WAITING: 1, Phase.PLANNED: 1, Phase.CLOSED: 2}
    if order[after] > order[before]:
        assert before.followed_by(after) is after
    else:
        with pytest.raises(ValueError, match="can't become"):
            before.followed_by(after)
