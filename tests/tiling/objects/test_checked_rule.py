"""Rules of a user's own: what doesn't keep to the protocol is refused on one line, with the function and its fault."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tiling.errors import RuleError
from tiling.objects.checked_rule import CheckedRule
from tiling.objects.rule import View


class Own:
    """A rule that is right but for what a test changes."""

    seed_reach_px: object = 0
    reach_px: object = 1
    takes_probabilities = False

    def __init__(self, **wrong: object) -> None:
        for name, value in wrong.items():
            setattr(self, name, value)

    def seeds(self, view: View) -> object:
        return (view.labels == 1).astype(np.uint8)

    def grow(self, seeds_YX: NDArray[np.int32], view: View) -> object:
        return seeds_YX


def raising(*_: object) -> object:
    raise AssertionError("no cells\nhere")


def exiting(*_: object) -> object:
    raise SystemExit(3)


def without_class(view: View) -> object:
    return np.ones(view.labels.shape, np.uint8)


def writing(view: View) -> object:
    view.labels[:] = 1
    return view.labels


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reach_px": -1}, r"reach_px is -1.*from 0 to 2048"),
        ({"seed_reach_px": 2.0}, r"seed_reach_px is 2\.0"),
        ({"reach_px": "4"}, r"reach_px is '4'"),
        ({"reach_px": True}, r"reach_px is True"),
        ({"seed_reach_px": 10**9}, r"seed_reach_px is 1000000000"),
        ({"seeds": raising}, r"seeds\(\) fails with AssertionError: no cells here; correct it"),
        ({"grow": raising}, r"grow\(\) fails with AssertionError: no cells here; correct it"),
        ({"seeds": exiting}, r"seeds\(\) fails with SystemExit: 3; correct it"),
        ({"seeds": lambda view: None}, r"seeds\(\) gives a NoneType"),
        ({"seeds": lambda view: view.labels[1:] == 1}, r"seeds\(\) gives an array of shape \(\d+, \d+\)"),
        ({"seeds": lambda view: (view.labels == 1) * 1.0}, r"seeds\(\) gives float64"),
        ({"seeds": lambda view: (view.labels == 1) * 256}, r"seeds\(\) gives values from 0 to 256"),
        ({"seeds": lambda view: (view.labels == 1) * -1}, r"seeds\(\) gives values from -1 to 0"),
        ({"seeds": without_class}, r"seeds\(\) gives seeds where the mask has no class"),
        ({"seeds": writing}, r"seeds\(\) fails with ValueError: assignment destination is read-only"),
        ({"grow": lambda seeds, view: seeds[0]}, r"grow\(\) gives an array of shape \(\d+,\)"),
        ({"grow": lambda seeds, view: seeds / 2}, r"grow\(\) gives float64"),
        ({"grow": lambda seeds, view: seeds + (seeds > 0)}, r"grow\(\) gives the number \d+, which no seed has"),
        ({"grow": lambda seeds, view: -seeds}, r"grow\(\) gives the number -\d+, which no seed has"),
        ({"grow": lambda seeds, view: np.full_like(seeds, seeds.max())}, r"grow\(\) gives objects where the mask"),
    ],
)
def test_what_does_not_keep_to_the_protocol_is_refused_on_one_line(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(RuleError, match=said) as raised:
        found(Own(**wrong))
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("objects 'own_rules:make'")


def found(rule: object) -> NDArray[np.int32]:
    """The objects of two squares and a corner without a class."""
    labels = np.zeros((30, 40), np.uint8)
    labels[3:9, 3:9], labels[12:20, 10:18], labels[25:, 35:] = 1, 1, 255
    view, checked = View(labels), CheckedRule(rule, "own_rules:make")  # type: ignore[arg-type]
    seeds = checked.seeds(view).astype(np.int32)
    seeds[12:20] *= 2
    return checked.grow(seeds, view)


def test_what_keeps_to_it_is_given_on() -> None:
    assert np.unique(found(Own())).tolist() == [0, 1, 2]
    assert np.unique(found(Own(seeds=lambda view: view.labels == 1))).tolist() == [0, 1, 2]
