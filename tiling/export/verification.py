"""Verification of exports and pictures: each shows the mask as it is now, and still is what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tiling.export.close_ups import close_up_paths
from tiling.export.export_run import EXPORT_DAMAGED, EXPORTED, VERSION, asked_formats, digests_of
from tiling.export.formats import FORMATS
from tiling.runs.ledger import DRAWN, Event, LedgerState
from tiling.runs.mask_digest import mask_digest
from tiling.storage.checksum import Checksum
from tiling.storage.place import Place

if TYPE_CHECKING:
    from tiling.runs.run import Run

OVERLAY, FOREGROUND, REPORT = "overlay.png", "exports/foreground.png", "report.html"
PICTURES = (OVERLAY, FOREGROUND, REPORT)
"""What every run is drawn as, below its folder."""

ANOTHER = "it shows another mask than there is now"
NOT_KNOWN = "an earlier version wrote it and kept no digest of it"


def check_exports(run: Run, state: LedgerState) -> Iterator[tuple[str, str]]:
    """Files of the formats that were asked for or exported, and what is wrong with each, as (file, fault)."""
    last = {event.facts.get("format"): event for event in state.events if event.name == EXPORTED}
    asked, digests = asked_formats(state), digests_of(run, state)
    for name, form in FORMATS.items():
        for file in form.files:
            fault = None
            if name in last:
                seal = Checksum.parse(last[name].facts.get("seals", {}).get(file))
                is_current = (last[name].facts["mask"], last[name].facts["version"]) == (digests[name], VERSION)
                fault = _fault(run.exports / file, seal, is_current=is_current)
            elif name in asked:
                fault = "it is not written yet"
            elif (run.exports / file).is_file():
                fault = "the ledger knows nothing of it"
            if fault is not None:
                yield f"exports/{file}", fault


def newly_damaged(state: LedgerState, faults: Mapping[str, str]) -> list[str]:
    """Formats of which a file isn't what was written, by what `check_exports` found, and the ledger says that it is."""
    last = {e.facts.get("format"): e.name for e in state.events if e.name in (EXPORTED, EXPORT_DAMAGED)}
    found: list[str] = []
    for name, form in FORMATS.items():
        damage = {faults.get(f"exports/{file}") for file in form.files} - {None, ANOTHER, NOT_KNOWN}
        if damage and last.get(name) == EXPORTED:
            found.append(name)
    return found


def check_pictures(run: Run, state: LedgerState) -> Iterator[tuple[str, str]]:
    """The same of the pictures, the report, and close-ups that the last drawing named or that are there."""
    digest, with_overlay = mask_digest(run, state), last_drawn(state, OVERLAY)
    named = with_overlay.facts["seals"] if with_overlay is not None else {}
    there = [f"{run.close_ups.name}/{path.name}" for _, path in close_up_paths(run) if path.is_file()]
    close_ups = sorted({*there, *(file for file in named if file.startswith(f"{run.close_ups.name}/"))})
    for file in (*PICTURES, *close_ups):
        drawn = last_drawn(state, file)
        place = _below(run, file)
        if drawn is None:
            yield file, NOT_KNOWN if place.is_file() else "it is not drawn yet"
        elif fault := _fault(
            place, Checksum.parse(drawn.facts["seals"][file]), is_current=drawn.facts["mask"] == digest
        ):
            yield file, fault


def last_drawn(state: LedgerState, file: str) -> Event | None:
    """The event of a picture's last drawing."""
    return next((e for e in reversed(state.events) if e.name == DRAWN and file in e.facts["seals"]), None)


def is_as_drawn(run: Run, state: LedgerState, file: str) -> bool:
    """True if a picture is there, and is what was drawn; one of which that isn't known counts as it is."""
    place, drawn = _below(run, file), last_drawn(state, file)
    seal = Checksum.parse(drawn.facts["seals"][file]) if drawn is not None else None
    return place.is_file() if seal is None else seal.fault(place) is None


def seals_of(run: Run, *files: str) -> dict[str, Any]:
    """Facts of the checksums of pictures, by file."""
    return {file: Checksum.of(_below(run, file)).facts() for file in files}


def announce_drawn(run: Run, digest: str, seals: Mapping[str, Any], *, soon: bool = False) -> None:
    """Record the checksums of pictures in the ledger, and the digest of the mask that they show."""
    run.ledger.announce(DRAWN, {"mask": digest, "seals": dict(seals)}, soon=soon)


def _fault(place: Place, seal: Checksum | None, *, is_current: bool) -> str | None:
    """Damage comes first: what shows another mask today may show the run's again once its tiles are computed."""
    if seal is not None and (fault := seal.fault(place)) is not None:
        return fault
    if not place.is_file():
        return "it is missing"
    if not is_current:
        return ANOTHER
    return NOT_KNOWN if seal is None else None


def _below(run: Run, file: str) -> Place:
    place = run.path
    for part in file.split("/"):
        place = place / part
    return place
