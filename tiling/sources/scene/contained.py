"""Containment of the files that a description of a scene names.

Those of a description on a disk lie below its folder. A STAC item may lead to the web: one at a URL to its own server
and to others by https, and to no host that only this machine or its network has.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from tiling.errors import PlaceError, SourceError
from tiling.storage.object_path import READ_ONLY_SCHEMES, ObjectPath

_WEB = tuple(f"{scheme}://" for scheme in READ_ONLY_SCHEMES)
_NUMBER = re.compile(r"0x[0-9a-f]*|\d+")


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


def on_web(named: str, description: Path | ObjectPath, what: str) -> ObjectPath:
    """An object on the web that a description names, by a URL or relative to its own.

    Raises:
        SourceError: it is of another kind, lies where the description may not lead, or is the description itself.
    """
    try:
        url = named.strip() if isinstance(description, Path) else urljoin(str(description), named.strip())
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise SourceError(f"the URL of an {what} is malformed ({error}); correct it") from error
    if scheme not in READ_ONLY_SCHEMES:
        raise SourceError(
            f"an {what} of it leads to {scheme[:20]!r}, and an item at a URL to https and http alone; download it, and "
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
        _expect_public(place, what)
    return place


def _expect_public(place: ObjectPath, what: str) -> None:
    """Refuse another server than the description's own that is not public."""
    host = (urlsplit(place.root).hostname or "").rstrip(".").lower()
    try:
        is_inner = not ipaddress.ip_address(host).is_global
    except ValueError:
        # Libraries take other numbers for addresses as well, such as 0x7f.1.
        is_inner = host.rpartition(".")[2] == "localhost" or _NUMBER.fullmatch(host.rpartition(".")[2]) is not None
    if is_inner or not place.root.startswith("https://"):
        raise SourceError(
            f"its {what} {place} lies on another server, {'which is not public' if is_inner else 'without https'}: an "
            "item at a URL leads to its own server, and to public ones by https; download the item, and give its file"
        )
