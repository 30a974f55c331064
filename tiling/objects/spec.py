"""Specification of a run's objects, by labels: the rule of the model's card as the ledger records it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from tiling.errors import RunError

VERSION = 1
"""Of what the numbers mean: objects of another version are made anew."""


class ObjectSpec(BaseModel):
    """The rule with its numbers; labels are those of the mask.

    Attributes:
        rule: `components`, `border`, `distance`, or `package.module:factory` of a user's own.
        radius_px: how far seeds grow.
        border: the label of borders.
        channel: the channel of the probabilities whose value is the height.
        level: the height, 1 to 255, from which on a maximum is a seed.
        spacing_px: no seed lies nearer than this to a greater height.
        least_px: by label, the least pixels of an object.
        filled: labels whose objects have no holes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str = "components"
    radius_px: int = 0
    border: int | None = None
    channel: int | None = None
    level: int = Field(default=128, ge=1, le=255)
    spacing_px: int = Field(default=1, ge=1)
    least_px: dict[int, PositiveInt] = Field(default_factory=dict)
    filled: tuple[int, ...] = ()

    @property
    def is_own(self) -> bool:
        """True if the rule is code of the user's own."""
        return ":" in self.rule

    def facts(self) -> dict[str, Any]:
        """For an event of the ledger."""
        return self.model_dump(mode="json", exclude_defaults=True) | {"rule": self.rule}

    @classmethod
    def parse(cls, facts: object) -> ObjectSpec:
        """Of an event.

        Raises:
            RunError: a later version wrote it, or it is damaged.
        """
        try:
            return cls.model_validate(facts)
        except ValidationError as error:
            problem = error.errors()[0]
            raise RunError(
                f"the ledger asks for objects by a rule that isn't known here ({problem['loc']}: {problem['msg']}); "
                f"use the version of overtile that began the run"
            ) from error

    def digest(self) -> str:
        """Of all that can change an object."""
        said = json.dumps({"version": VERSION, **self.facts()}, sort_keys=True)
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
