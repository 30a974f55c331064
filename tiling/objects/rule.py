"""Rules by which pixels become objects: where an object's seed is, and what grows from it.

A rule is two functions with a finite reach, so that a block with that much context around it gives what the whole
image gives. All between them is the engine's: seeds that hang together are one, across any border, and are numbered by
their first pixels. The three rules here and a user's own meet the same protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tiling.objects.growth import grown
from tiling.objects.spec import ObjectSpec

NO_CLASS = 255
"""The label of what was not predicted, or holds no data: never an object's."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """View of a part of the image, as a rule sees it.

    Attributes:
        labels: the mask's, `(y, x)`; 0 is background, 255 no class.
        probabilities: `(class, y, x)` in 8 bits; None where the rule asks for none.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None = None


@runtime_checkable
class Rule(Protocol):
    """A way from labels and probabilities to objects, exact for any tiling.

    Both functions must give a pixel the same answer wherever the view begins and ends, if only it holds all pixels
    within the reach, or all up to the image's edge.

    Attributes:
        seed_reach_px: pixels around a pixel that decide whether it is a seed's.
        reach_px: pixels around a pixel that decide which object it grows into; 0 leaves seeds as they are.
        takes_probabilities: whether views hold them, which the run must keep then.
    """

    @property
    def seed_reach_px(self) -> int: ...
    @property
    def reach_px(self) -> int: ...
    @property
    def takes_probabilities(self) -> bool: ...

    def seeds(self, view: View) -> NDArray[np.uint8]:
        """The class of each pixel of a seed, 0 elsewhere; pixels of one class that share an edge are one seed."""
        ...

    def grow(self, seeds_YX: NDArray[np.int32], view: View) -> NDArray[np.int32]:
        """The object of each pixel, from the seeds' numbers, which rise with the place of their first pixels by rows.

        What is no object's stays 0, and no object is lost. An object should hang together by its edges. The array of
        the seeds is the rule's own: it may grow them in place.
        """
        ...


@dataclass(frozen=True)
class ComponentsRule:
    """Areas of one class whose pixels share edges."""

    seed_reach_px: int = 0
    reach_px: int = 0
    takes_probabilities: bool = False

    def seeds(self, view: View) -> NDArray[np.uint8]:
        return _of_classes(view.labels)

    def grow(self, seeds_YX: NDArray[np.int32], view: View) -> NDArray[np.int32]:
        return seeds_YX


@dataclass(frozen=True)
class BorderRule:
    """Areas of any class but the border's, grown step by step into pixels of borders."""

    border: int
    reach_px: int
    seed_reach_px: int = 0
    takes_probabilities: bool = False

    def seeds(self, view: View) -> NDArray[np.uint8]:
        return _of_classes(view.labels, self.border)

    def grow(self, seeds_YX: NDArray[np.int32], view: View) -> NDArray[np.int32]:
        return grown(seeds_YX, view.labels == self.border, self.reach_px, in_place=True)


@dataclass(frozen=True)
class DistanceRule:
    """Maxima of a channel, each grown over its class while the level falls from the top to nothing."""

    channel: int
    level: int
    seed_reach_px: int
    reach_px: int
    takes_probabilities: bool = True

    def seeds(self, view: View) -> NDArray[np.uint8]:
        heights_YX = self._heights(view)
        side = 2 * self.seed_reach_px + 1
        is_top = heights_YX == ndimage.maximum_filter(heights_YX, size=side, mode="constant", cval=0)
        return np.where(is_top & (heights_YX >= self.level), _of_classes(view.labels), 0).astype(np.uint8)

    def grow(self, seeds_YX: NDArray[np.int32], view: View) -> NDArray[np.int32]:
        labels_YX = view.labels
        is_open = (labels_YX != 0) & (labels_YX != NO_CLASS)
        heights_YX = self._heights(view)
        return grown(seeds_YX, is_open, self.reach_px, heights_YX=heights_YX, classes_YX=labels_YX, in_place=True)

    def _heights(self, view: View) -> NDArray[np.uint8]:
        assert view.probabilities is not None
        return view.probabilities[self.channel]


def builtin_rule(spec: ObjectSpec) -> Rule:
    """The rule of a spec that names none of a user's own."""
    if spec.rule == "border":
        assert spec.border is not None
        return BorderRule(spec.border, spec.radius_px)
    if spec.rule == "distance":
        assert spec.channel is not None
        return DistanceRule(spec.channel, spec.level, spec.spacing_px, spec.radius_px)
    return ComponentsRule()


def _of_classes(labels_YX: NDArray[np.uint8], *others: int) -> NDArray[np.uint8]:
    """The labels of classes, without those of others."""
    # Flags as numbers: a product with a truth value is computed many times slower.
    flags = [(labels_YX != label).view(np.uint8) for label in others]
    if labels_YX.max(initial=0) == NO_CLASS:
        flags.append((labels_YX != NO_CLASS).view(np.uint8))
    kept_YX = labels_YX
    for each in flags:
        kept_YX = np.multiply(kept_YX, each, out=each)
    return kept_YX
