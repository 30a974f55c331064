"""History of an archive's nights: which ended, which died, and which did not begin."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

GRACE = 0.125
"""Of the time between two nights, by which one may be late: three hours of a day; clocks are put back by one."""


@dataclass(frozen=True, slots=True)
class PastNight:
    """One night.

    Attributes:
        name: its date and time. began, ended: seconds since 1970; not ended where it died or is under way.
        todo: slides that it had to do; None where it didn't say. is_rerun: only of what failed, asked for by hand.
        summary: its result in one sentence. died_of: why it died, where it could still say so.
        facts: of its end, for estimates. every: seconds after which its options say that the next one is due.
    """

    name: str
    began: float
    todo: int | None = None
    is_rerun: bool = False
    ended: float | None = None
    summary: str = ""
    died_of: str = ""
    facts: Mapping[str, Any] | None = None
    every: float | None = None

    @property
    def death(self) -> str:
        """Sentence on how it died."""
        reason = self.died_of or "its process ended without a word, as after a power cut or for want of memory"
        return f"the night of {shown_time(self.began)} died: {reason}"


@dataclass(frozen=True, slots=True)
class NightHistory:
    """All nights of an archive, in order of their begin."""

    nights: tuple[PastNight, ...]

    @classmethod
    def of(cls, events: Iterable[Mapping[str, Any]]) -> NightHistory:
        """Of the events of an archive's ledger."""
        nights: list[PastNight] = []
        for event in events:
            facts = event["facts"]
            if event["event"] == "night":
                nights.append(_begun(event["time"], facts))
            elif event["event"] == "morning":
                is_its = bool(nights) and nights[-1].ended is None
                before = nights.pop() if is_its else PastNight(facts["night"], event["time"])
                ended = facts.get("ended_at", event["time"])
                nights.append(replace(before, name=facts["night"], ended=ended, summary=facts["told"], facts=facts))
            elif event["event"] == "died" and nights:
                nights[-1] = replace(nights[-1], died_of=facts["reason"])
        return cls(tuple(nights))

    @property
    def last(self) -> PastNight | None:
        return self.nights[-1] if self.nights else None

    @property
    def ended(self) -> list[PastNight]:
        return [night for night in self.nights if night.ended is not None]

    @property
    def every(self) -> float | None:
        """Seconds after which the last night that wasn't a rerun says that the next one is due."""
        return next((night.every for night in reversed(self.nights) if not night.is_rerun), None)

    @property
    def recent_deaths(self) -> list[PastNight]:
        """Nights since the last one that ended, none of which did."""
        dead: list[PastNight] = []
        for night in reversed(self.nights):
            if night.ended is not None:
                break
            dead.append(night)
        return dead[::-1]

    def has_reported(self, night: str) -> bool:
        """True if a night, or one after it, ended with its page: what it recorded is no news any more.

        So it is of a night that isn't known here, as of ledgers that were written before nights were.
        """
        begun = next((at for at, each in enumerate(self.nights) if each.name == night), -1)
        return begun < 0 or any(each.ended is not None for each in self.nights[begun:])

    def missed(self, now: float, every: float | None) -> str:
        """Nights that were due and didn't begin until now, in words; nothing where none was, or none is ever due."""
        begun = [night for night in self.nights if not night.is_rerun]
        due = int((now - begun[-1].began) / every - GRACE) if every and begun else 0
        if due < 1:
            return ""
        were = "1 night was" if due == 1 else f"{due} nights were"
        return f"no night began between {shown_time(begun[-1].began)} and {shown_time(now)}: {were} due"

    def warnings(self, now: float, every: float | None) -> tuple[str, ...]:
        """Warnings that a night that begins now gives of those before it."""
        missed = self.missed(now, every)
        return (*(night.death for night in self.recent_deaths), *([missed] if missed else []))


def latest_fact(nights: Sequence[PastNight], name: str) -> float | None:
    """The last number above 0 that nights' ends hold under a name."""
    values = [float((night.facts or {}).get(name) or 0.0) for night in nights]
    return next((value for value in reversed(values) if value > 0), None)


def shown_time(moment: float) -> str:
    """A moment as people write it, with the offset of the place where it is read.

    It names the hour and the minute, for that is what tells two nights apart.
    """
    return f"{dt.datetime.fromtimestamp(moment).astimezone():%Y-%m-%d %H:%M %Z}"


def _begun(time: float, facts: Mapping[str, Any]) -> PastNight:
    options = facts.get("config", {})
    return PastNight(
        name=facts.get("night", ""),
        began=facts.get("began", time),
        todo=facts.get("todo"),
        is_rerun=bool(options.get("failed_only")),
        every=options.get("every"),
    )
