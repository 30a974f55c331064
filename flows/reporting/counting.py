"""Counts in sentences."""

from __future__ import annotations


def count(number: int | None, what: str) -> str:
    """A number with its noun.

    >>> count(1, "slide"), count(3, "slide")
    ('1 slide', '3 slides')
    """
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"
