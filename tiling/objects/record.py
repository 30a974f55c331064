"""Records of objects in a run's ledger: which are asked for, and which mask those on disk are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiling.objects.spec import ObjectSpec
from tiling.objects.tree_digest import tree_digest
from tiling.runs.ledger import Event, LedgerState
from tiling.runs.mask_digest import mask_digest
from tiling.runs.pyramid_metadata import is_made

if TYPE_CHECKING:
    from tiling.runs.run import Run

OBJECTS_ASKED = "objects asked"
"""The event that names the rule by which the run is to have objects; none where it is to have none."""
OBJECTS_BEGUN = "objects begun"
"""The event before the earlier objects go: until the next one, what lies in their place is of nobody knows what."""
OBJECTS = "objects"
"""The event after which objects are those of the mask of that digest, by the rule of that digest."""
OBJECTS_DAMAGED = "objects damaged"
"""The event after which they are no longer what was written."""
ALTERED = "they aren't what was written"
"""The fault of objects and labels that were damaged, also when it is known already."""
_ABOUT_THEM = (OBJECTS_BEGUN, OBJECTS, OBJECTS_DAMAGED)


@dataclass(frozen=True, slots=True)
class Built:
    """Event of objects that were built.

    Attributes:
        mask: the digest of the mask that they are of.
        rule: the digest of the spec.
        digest: of all their files.
        count: how many there are.
        specks: by label, how many were too small.
    """

    mask: str
    rule: str
    digest: str
    count: int
    specks: dict[int, int]

    @classmethod
    def of(cls, event: Event) -> Built:
        facts: dict[str, Any] = event.facts
        specks = {int(label): int(count) for label, count in facts["specks"].items()}
        return cls(facts["mask"], facts["rule"], facts["digest"], facts["count"], specks)


def asked_objects(state: LedgerState) -> ObjectSpec | None:
    """The rule by which the run is to have objects; None where it is to have none."""
    event = state.last_event(OBJECTS_ASKED)
    facts = event.facts["spec"] if event is not None else None
    return None if facts is None else ObjectSpec.parse(facts)


def ask_for_objects(run: Run, state: LedgerState, spec: ObjectSpec | None) -> None:
    """Record a rule where it is another than before."""
    if spec != asked_objects(state):
        facts = {"spec": None if spec is None else spec.facts()}
        state.add(run.ledger.announce(OBJECTS_ASKED, facts))


def built_objects(run: Run, state: LedgerState) -> Built | None:
    """Objects that are those of the mask as it is, by the rule that is asked for; None where there are none."""
    spec, last = asked_objects(state), _last_about_them(state)
    if spec is None or last is None or last.name != OBJECTS:
        return None
    built = Built.of(last)
    is_current = built.mask == mask_digest(run, state) and built.rule == spec.digest()
    return built if is_current and is_made(run.objects_path) else None


def objects_digest(run: Run, state: LedgerState) -> str:
    """Of the mask and the objects: what an export of objects shows."""
    built = built_objects(run, state)
    mask = mask_digest(run, state)
    return mask if built is None else f"{mask}+{built.digest}"


def check_objects(run: Run, state: LedgerState) -> str | None:
    """Name what is wrong with the objects that are asked for; None where nothing is."""
    built = built_objects(run, state)
    if asked_objects(state) is None:
        return None
    if built is None:
        last = _last_about_them(state)
        return ALTERED if last is not None and last.name == OBJECTS_DAMAGED else "they are not built"
    return None if tree_digest(run.objects_path) == built.digest else ALTERED


def _last_about_them(state: LedgerState) -> Event | None:
    return next((event for event in reversed(state.events) if event.name in _ABOUT_THEM), None)
