"""Containment of the files that a description of a scene names.

Those of a description on a disk lie below its folder. A STAC item may lead to the web: one at a URL to its own server
and to others by https, and to no host that only this machine or its network has. One in a bucket leads to its bucket,
and to no other: whoever wrote it may not choose what is read with the credentials of whoever gives it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from tiling.errors import PlaceError, SourceError
from tiling.storage.object_path import READ_ONLY_SCHEMES, ObjectPath
from tiling.storage.redirects import objection

_WEB = tuple(f"{scheme}://" for scheme in READ_ONLY_SCHEMES)


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


def is_on_web(named: str) -> bool:
    """True if a name is a URL of http or https."""
    return named.strip().lower().startswith(_WEB)


def at_url(named: str, description: Path | ObjectPath, what: str) -> ObjectPath:
    """An object on the web or in a bucket that a description names, by a URL or relative to its own.

    Raises:
        SourceError: it is of another kind, lies where the description may not lead, or is the description itself.
    """
    is_in_bucket = isinstance(description, ObjectPath) and not description.is_on_web
    try:
        url = named.strip() if isinstance(description, Path) else _joined(description, named.strip())
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise SourceError(f"the URL of an {what} is malformed ({error}); correct it") from error
    own = description.root.partition("://")[0] if isinstance(description, ObjectPath) else ""
    if scheme not in {*READ_ONLY_SCHEMES, own}:
        where = "in a bucket to that bucket and to https" if is_in_bucket else "at a URL to https and http"
        raise SourceError(
            f"an {what} of it leads to {scheme[:20]!r}, and an item {where} alone; download it, and "
            "give the item beside its files"
        )
    try:
        place = ObjectPath.parse(url)
    except PlaceError as error:
        raise SourceError(f"an {what} of it can't be read: {error}") from error
    if ".." in unquote(place.key).split("/"):
        raise SourceError(f"its {what} {place} climbs out of a folder; write the URL without '..'")
    if place == description:
        raise SourceError(f"it names itself as an {what}; write it again")
    if isinstance(description, ObjectPath) and place.root != description.root:
        _expect_public(place, description, what)
        return replace(place, public_only=True)
    return place


def _joined(description: ObjectPath, named: str) -> str:
    """Address to which a name leads from a description's own URL."""
    if description.is_on_web or "://" in named:
        return urljoin(str(description), named)
    # The library joins names to the schemes alone that it knows.
    scheme = description.root.partition("://")[0]
    joined = urljoin(f"http{str(description).removeprefix(scheme)}", named)
    return f"{scheme}{joined.removeprefix('http')}" if joined.startswith("http://") else joined


def _expect_public(place: ObjectPath, description: ObjectPath, what: str) -> None:
    """Refuse another server than the description's own that is not public, and another bucket."""
    if not place.is_on_web:
        raise SourceError(
            f"its {what} {place} lies in another bucket: an item in a bucket leads to that bucket, and to public "
            "servers by https; copy the file there, or download both"
        )
    if objects := objection(description.root, place.root):
        where = "in a bucket leads to that bucket" if not description.is_on_web else "at a URL leads to its own server"
        raise SourceError(
            f"its {what} {place} lies on another server, {objects}: an item {where}, and to public ones by https; "
            "download the item, and give its file"
        )
