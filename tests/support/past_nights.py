"""Events of nights as an archive's ledger holds them, at moments that a test gives."""

from __future__ import annotations

from typing import Any

HOUR, DAY = 3600.0, 86400.0


def begun(at: float, *, rerun: bool = False) -> dict[str, Any]:
    facts = {"night": f"n{at:.0f}", "began": at, "todo": 3, "config": {"failed_only": rerun}}
    return {"event": "night", "time": at, "facts": facts}


def ended(at: float, name: str) -> dict[str, Any]:
    return {"event": "morning", "time": at, "facts": {"night": name, "told": "slides: 1 done", "rate": 2.0}}


def died(at: float, reason: str) -> dict[str, Any]:
    return {"event": "died", "time": at, "facts": {"night": "", "reason": reason}}
