"""Redirects, and other ways on which what lies at an address on the web leads to another one.

An address leads to its own server, and to public ones by https: neither a server nor a description that lies there may
make a client ask what only this machine or its network has.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from tiling.errors import AccessError
from tiling.storage.public_address import is_public

SCHEMES = ("https", "http")
_NUMBER = re.compile(r"0x[0-9a-f]*|\d+")
_INNER = {"localhost", "local", "internal", "arpa"}
"""Last parts of names that no public server has (RFC 6761, 6762 and 8375, and ICANN's own for private use)."""


def objection(root: str, target: str) -> str:
    """Reason why an address at a root may not lead to another root; empty where it may.

    >>> objection("https://example.org", "https://cdn.example.org")
    ''
    >>> objection("https://example.org", "https://10.0.0.1")
    'which is not public'
    """
    if is_same_server(root, target):
        return ""
    if _is_inner((urlsplit(target).hostname or "").rstrip(".").lower()):
        return "which is not public"
    return "" if target.startswith("https://") else "without https"


def is_same_server(root: str, target: str) -> bool:
    """True of two roots of one server, the second of which may be the secure one of the two."""
    return target in {root, re.sub("^http:", "https:", root)}


def redirected(url: str, location: str, place: object) -> str:
    """The address to which a server's answer for another one leads; `place` is what errors call that.

    Raises:
        AccessError: it may not lead there.
    """
    try:
        target = urljoin(url, location.strip())
        parts, is_sound = urlsplit(target), urlsplit(target).port != 0
    except ValueError:
        target, parts, is_sound = "", SplitResult("", "", "", "", ""), False
    # Of the target no more is told than its server, since the rest may be signed.
    shown = "".join(c if c.isprintable() else " " for c in f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")[:100]
    if not is_sound or not parts.scheme:
        objects = "to an address that is malformed"
    elif parts.scheme not in SCHEMES or not parts.hostname:
        objects = f"to {parts.scheme[:20]!r}, and a server may to http and https alone"
    elif "@" in parts.netloc:
        objects = f"to {shown} with a user or password"
    else:
        why = objection(root_of(url), root_of(target))
        objects = f"to another server, {shown}, {why}" if why else ""
    if objects:
        raise AccessError(
            f"{place}: is redirected {objects}: a redirect leads to the same server, and to public ones by https; "
            "download it, and give the file"
        )
    path, query = (quote(text, safe="%/?~!$&'()*+,;=:@") for text in (parts.path, parts.query))
    return parts._replace(path=path, query=query, fragment="").geturl()


def root_of(url: str) -> str:
    """Scheme and server of an address, as roots are compared."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _is_inner(host: str) -> bool:
    """True of a server that only this machine or its network has, by its name or number."""
    try:
        return not is_public(host)
    except ValueError:
        # Libraries take other numbers for addresses as well, such as 0x7f.1, and short names for neighbours'.
        last = host.rpartition(".")[2]
        return "." not in host or last in _INNER or _NUMBER.fullmatch(last) is not None
