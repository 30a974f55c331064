"""Object on a web server: its facts and its bytes, by HEAD and GET, wherever redirects lead that may be followed.

A server that answers no HEAD is asked for the first byte, and one that knows no ranges for all of a small object, such
as an item that an API makes when it is asked for.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote, urlsplit

from tiling.errors import AccessError, ChangedError, StorageError
from tiling.storage import connection
from tiling.storage.object_facts import ObjectFacts, Tag
from tiling.storage.public_address import NotPublicError
from tiling.storage.redirects import is_same_server, redirected, root_of
from tiling.storage.web_connection import Answer, TooLongError, ask

MOST_REDIRECTS = 10
MOST_BYTES = 512 * 1024**2
"""The most that is read at once."""
SMALL_BYTES = 8 * 1024**2
"""The most that is read of an object for a part of it, where a server knows no ranges."""
_REDIRECTS = {301, 302, 303, 307, 308}
_NO_HEAD = {403, 405, 501}
"""Answers to HEAD after which GET is tried: an API may know GET alone, and a signed address is for GET alone."""
_AGAIN = {429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18})")
_LENGTH = re.compile(r"\d{1,18}")


def facts_of(url: str, *, public_only: bool = False) -> ObjectFacts:
    """Size and identity; `FileNotFoundError` where there is no such object.

    With `public_only` a description that lies elsewhere led to it: its server has to be a public one.

    Raises:
        AccessError: it may not be read, or lies where its server may not lead.
        StorageError: the server fails.
    """
    answer = _followed("HEAD", url, {}, 0, public_only)
    length = _LENGTH.fullmatch(answer.headers.get("content-length", ""))
    if answer.status not in _NO_HEAD and (answer.status >= 300 or length is not None):
        _expect_found(answer, url)
        return _facts(answer, 0 if length is None else int(length[0]))
    answer = _followed("GET", url, {"Range": "bytes=0-0"}, SMALL_BYTES, public_only)
    known = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    if answer.status == 416 and known is not None:
        return _facts(answer, int(known[2]))
    _expect_found(answer, url)
    return _facts(answer, len(answer.data)) if known is None else _facts(answer, int(known[2]))


def bytes_of(
    url: str, wanted: slice | None = None, e_tag: str | None = None, *, public_only: bool = False
) -> tuple[bytes, ObjectFacts]:
    """Bytes of an object: all, from a place on, between two, or the last few (`slice(-count, None)`).

    Raises:
        As `facts_of` does.
        ChangedError: it has another tag by now.
    """
    headers = {} if wanted is None else {"Range": f"bytes={_range(wanted)}"}
    headers |= {} if e_tag is None else {"If-Match": e_tag}
    most_bytes = MOST_BYTES if wanted is None else max(SMALL_BYTES, _count(wanted))
    answer = _followed("GET", url, headers, most_bytes, public_only)
    known = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    if answer.status == 416 and known is not None:
        return b"", _facts(answer, int(known[2]))
    _expect_found(answer, url)
    if e_tag is not None and answer.headers.get("etag", e_tag) != e_tag:
        raise ChangedError(f"{url} was changed by somebody else")
    if answer.status != 206:
        return (answer.data if wanted is None else answer.data[wanted]), _facts(answer, len(answer.data))
    start = None if known is None else known[1]
    if wanted is None or known is None or start is None or (wanted.start >= 0 and int(start) != wanted.start):
        raise StorageError(f"{url}: the server answers with other bytes than were asked for; download it")
    return answer.data, _facts(answer, int(known[2]))


def _range(wanted: slice) -> str:
    start, stop = wanted.start, wanted.stop
    return f"{start}" if start < 0 else f"{start}-{'' if stop is None else stop - 1}"


def _count(wanted: slice) -> int:
    if wanted.start < 0:
        return -wanted.start
    return MOST_BYTES if wanted.stop is None else wanted.stop - wanted.start


def _followed(method: str, url: str, headers: Mapping[str, str], most_bytes: int, public_only: bool) -> Answer:
    """The answer behind all redirects."""
    at = _encoded(url)
    for _ in range(MOST_REDIRECTS + 1):
        try:
            answer = _patient(method, at, headers, most_bytes, url, public_only)
        except NotPublicError as error:
            raise AccessError(
                f"{url}: {'lies on' if at == _encoded(url) else 'is redirected to'} another server, {root_of(at)}, "
                f"whose name stands for {error}, which is not public: a redirect and an item lead to the same server, "
                "and to public ones by https; download it, and give the file"
            ) from None
        if answer.status not in _REDIRECTS or "location" not in answer.headers:
            return answer
        target = redirected(at, answer.headers["location"], url)
        public_only = public_only or not is_same_server(root_of(at), root_of(target))
        at = target
    raise AccessError(f"{url}: is redirected more than {MOST_REDIRECTS} times; check the URL")


def _encoded(url: str) -> str:
    """An address as servers want it, of a key as it was typed."""
    parts = urlsplit(url)
    return parts._replace(path=quote(unquote(parts.path), safe="/~!$&'()*+,;=:@")).geturl()


def _patient(method: str, at: str, headers: Mapping[str, str], most_bytes: int, url: str, public_only: bool) -> Answer:
    """An answer, after retries where the server fails."""
    began, pause = time.monotonic(), connection.FIRST_BACKOFF_SECONDS
    for left in reversed(range(connection.MAX_RETRIES + 1)):
        try:
            answer = ask(method, at, headers, most_bytes, public_only=public_only)
            if answer.status not in _AGAIN:
                return answer
            reason = f"{answer.status} {answer.reason}".strip()
        except TooLongError as error:
            raise StorageError(
                f"{url}: the server reads no ranges, and would send {error} for a part; download it, and give the file"
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise StorageError(f"{url}: the server's certificate is not valid ({error.verify_message})") from None
        except (ValueError, http.client.InvalidURL) as error:
            raise StorageError(
                f"{url}: the URL names no server that can be asked ({_shown(error)}); check it"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = f"{error}" or type(error).__name__
        if not left or time.monotonic() - began > connection.RETRY_SECONDS:
            raise StorageError(f"{url}: the store failed ({_shown(reason)}), also after retries")
        time.sleep(min(pause, connection.LONGEST_BACKOFF_SECONDS))
        pause *= 2
    raise AssertionError


def _expect_found(answer: Answer, url: str) -> None:
    if 200 <= answer.status < 300:
        return
    reason = _shown(f"{answer.status} {answer.reason}".strip())
    if answer.status in {404, 410}:
        raise FileNotFoundError(f"{url}: there is no such object")
    if answer.status in {401, 403, 407}:
        raise AccessError(
            f"{url}: the server refuses access ({reason}); check the URL, or download it and give the file"
        )
    if answer.status == 412:
        raise ChangedError(f"{url} was changed by somebody else")
    raise StorageError(f"{url}: the server answers {reason}; check the URL")


def _shown(text: object) -> str:
    """Words of a server or a library, on one line and without addresses, which may be signed."""
    line = re.sub(r"\S+://\S+", "…", f"{text}")
    return "".join(c if c.isprintable() else " " for c in line)[:200]


def _facts(answer: Answer, size_bytes: int) -> ObjectFacts:
    e_tag = answer.headers.get("etag")
    modified = _time(answer.headers.get("last-modified"))
    if e_tag is None and modified is None and answer.data and answer.status == 200:
        # What is made when it is asked for has neither, and is what it holds.
        e_tag = f'W/"{hashlib.sha256(answer.data).hexdigest()}"'
    return ObjectFacts(size_bytes, modified or datetime.fromtimestamp(0, UTC), Tag(e_tag, None))


def _time(text: str | None) -> datetime | None:
    try:
        found = None if text is None else parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found is None or found.tzinfo is not None else found.replace(tzinfo=UTC)
