"""A rule of a user's own held to the protocol: what it gives wrong would become wrong objects, silently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiling.errors import RuleError
from tiling.objects.rule import NO_CLASS, Rule, View

MOST_REACH_PX = 2048
"""Each block is seen with that much around it: with more, memory would grow with the image."""


@dataclass(frozen=True)
class CheckedRule:
    """A rule whose every answer is looked at.

    Attributes:
        rule: that of the user's own.
        name: by which messages call it.

    Raises:
        RuleError: a reach that is none, at once; an answer that isn't one, or an error of its code, when it is asked.
    """

    rule: Rule
    name: str

    def __post_init__(self) -> None:
        for fact in ("seed_reach_px", "reach_px"):
            reach: Any = getattr(self.rule, fact)
            is_whole = isinstance(reach, int | np.integer) and not isinstance(reach, bool)
            if not is_whole or not 0 <= reach <= MOST_REACH_PX:
                raise RuleError(
                    f"objects {self.name!r}: {fact} is {reach!r}, and blocks are seen with that many pixels around "
                    f"them; give a whole number from 0 to {MOST_REACH_PX}"
                )

    @property
    def seed_reach_px(self) -> int:
        return int(self.rule.seed_reach_px)

    @property
    def reach_px(self) -> int:
        return int(self.rule.reach_px)

    @property
    def takes_probabilities(self) -> bool:
        return bool(self.rule.takes_probabilities)

    def seeds(self, view: View) -> NDArray[np.uint8]:
        found = self._answer("seeds", view.labels.shape, lambda: self.rule.seeds(_unwritable(view)))
        if found.size and (found.min() < 0 or found.max() >= NO_CLASS):
            raise self._wrong("seeds", f"values from {found.min()} to {found.max()}", "classes from 0 to 254")
        if found[view.labels == NO_CLASS].any():
            raise self._wrong("seeds", "seeds where the mask has no class (255)", "0 there")
        return found.astype(np.uint8, copy=False)

    def grow(self, seeds_YX: NDArray[np.int32], view: View) -> NDArray[np.int32]:
        given = np.unique(seeds_YX)
        found = self._answer("grow", view.labels.shape, lambda: self.rule.grow(seeds_YX, _unwritable(view)))
        others = np.setdiff1d(found, np.append(given, 0))
        if others.size:
            raise self._wrong("grow", f"the number {others[0]}, which no seed has here", "numbers of seeds, or 0")
        if found[view.labels == NO_CLASS].any():
            raise self._wrong("grow", "objects where the mask has no class (255)", "0 there")
        return found.astype(np.int32, copy=False)

    def _answer(self, function: str, shape: tuple[int, ...], ask: Callable[[], object]) -> NDArray[np.integer]:
        try:
            found = ask()
        except (Exception, SystemExit) as error:  # code of the user's own may fail with anything
            said = " ".join(str(error).split())
            raise RuleError(
                f"objects {self.name!r}: {function}() fails with {type(error).__name__}: {said}; correct it, and run "
                f"the same command again: no tile is computed again"
            ) from error
        if not isinstance(found, np.ndarray):
            raise self._wrong(function, f"a {type(found).__name__}", "an array of whole numbers")
        if found.shape != shape:
            raise self._wrong(function, f"an array of shape {found.shape}", f"one of the view's, {shape}")
        if found.dtype.kind not in "biu":
            raise self._wrong(function, f"{found.dtype}", "whole numbers")
        return found

    def _wrong(self, function: str, found: str, wanted: str) -> RuleError:
        return RuleError(
            f"objects {self.name!r}: {function}() gives {found}: nothing right can be numbered by that; give {wanted} "
            f"(docs/objects.md shows a rule), and run the same command again: no tile is computed again"
        )


def _unwritable(view: View) -> View:
    """The same pixels, which a rule can't change: what comes after it looks at them too."""
    labels, probabilities = view.labels.view(), None if view.probabilities is None else view.probabilities.view()
    labels.flags.writeable = False
    if probabilities is not None:
        probabilities.flags.writeable = False
    return View(labels, probabilities)
