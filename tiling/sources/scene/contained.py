"""Containment of the files that a description of a scene names: they lie below its folder, on this disk."""

from __future__ import annotations

from pathlib import Path

from tiling.errors import SourceError


def contained(named: str, description: Path, what: str) -> Path:
    """A file that a description names, links followed.

    Raises:
        SourceError: it is a URL, lies elsewhere, is the description itself, or is missing.
    """
    text = named.strip()
    folder = description.parent.resolve()
    if not text or "://" in text or "\0" in text or text.startswith(("/vsi", "<")):
        raise SourceError(f"its {what} {text[:100]!r} is no file beside it: its files lie in its folder; copy it there")
    try:
        file = (folder / text).resolve()
        is_there = file.is_file()
    except (OSError, RuntimeError) as error:
        raise SourceError(f"its {what} {text[:100]!r} leads nowhere ({error}); correct it") from error
    if file == description.resolve():
        raise SourceError(f"it names itself as a {what}; write it again")
    if not file.is_relative_to(folder):
        raise SourceError(
            f"its {what} {text[:100]!r} lies outside of its folder, to whose files alone it leads; move it up, "
            "or name them as a glob"
        )
    if not is_there:
        raise SourceError(f"its {what} {text[:100]!r} is missing; restore it, or write the description again")
    return file
