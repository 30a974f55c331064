"""Connections to object stores: retries, time-outs, and the library's errors as ours."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from tiling.errors import AccessError, ChangedError, CutError, PlaceError, StorageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

MAX_RETRIES = 8
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0
RETRY_SECONDS = 120.0
TRIES = 4
Answer = TypeVar("Answer")

SILENCE_SECONDS = 30.0
"""How long a server may say nothing before the request is tried again."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_ENDPOINT", "GOOGLE_BASE_URL")


@contextmanager
def store_errors(place: object) -> Generator[None]:
    """Turn the library's errors into ours, on one line and without what requests carried."""
    try:
        yield
    except FileNotFoundError:
        # The library's own text, with its dump of the request, goes nowhere: not into a traceback either.
        raise FileNotFoundError(f"{place}: there is no such object") from None
    except (AlreadyExistsError, PreconditionError):
        raise ChangedError(f"{place} was changed by somebody else") from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise AccessError(
            f"{place}: the store refuses access ({_status(error) or 'no valid credentials'}); check the credentials in "
            f"the environment (AWS_ACCESS_KEY_ID, …) and what they allow"
        ) from None
    except BaseError as error:
        kind = CutError if _was_cut(error) else StorageError
        raise kind(f"{place}: the store failed ({_reason(error)}), also after retries") from None


def with_retries(ask: Callable[[], Answer]) -> Answer:
    """Send a request that may be repeated, with retries.

    The library itself gives up where an error's own text is cut, or a deletion's answer lost.

    Raises:
        StorageError: as `ask` does, at the last try.
    """
    for _ in range(TRIES - 1):
        try:
            return ask()
        except CutError:
            time.sleep(FIRST_BACKOFF_SECONDS)
    return ask()


async def with_retries_async(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """The same for a coroutine."""
    import asyncio  # whoever has a coroutine has it loaded; a command that prints a run hasn't

    for _ in range(TRIES - 1):
        try:
            return await ask()
        except CutError:
            await asyncio.sleep(FIRST_BACKOFF_SECONDS)
    return await ask()


def _was_cut(error: Exception) -> bool:
    """True if a request broke off before the library's own retries were used up."""
    used = re.search(r"after (\d+) retries, max_retries: (\d+)", str(error))
    return not _status(error) and (used is None or int(used[1]) < int(used[2]))


def _status(error: Exception) -> str:
    found = re.search(r"status code: (\d{3} [A-Z][A-Za-z ]*)", str(error))
    return found.group(1).strip() if found else ""


def _reason(error: Exception) -> str:
    """Status and the store's own code, or the first line without URLs, which may hold signatures."""
    text = str(error)
    status = _status(error)
    code = re.search(r"<Code>([A-Za-z]{1,60})</Code>", text)
    if status:
        return f"{status}, {code.group(1)}" if code else status
    line = re.sub(r"\S+://\S+", "…", text.splitlines()[0] if text else type(error).__name__)
    return "".join(c if c.isprintable() else " " for c in line)[:200]


@lru_cache(maxsize=64)
def connect(root: str, prefix: str = "") -> ObjectStore:
    """The library's store at a root, or below a name in it; opened once per process."""
    retry: RetryConfig = {
        "max_retries": MAX_RETRIES,
        "retry_timeout": timedelta(seconds=RETRY_SECONDS),
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_BACKOFF_SECONDS),
            "max_backoff": timedelta(seconds=LONGEST_BACKOFF_SECONDS),
            "base": 2,
        },
    }
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(seconds=SILENCE_SECONDS),
        "timeout": timedelta(seconds=10 * SILENCE_SECONDS),
    }
    # Who names an http:// server means it; https stays the rule everywhere else.
    if root.startswith("http://") or any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS):
        client["allow_http"] = True
    with store_errors(root):
        try:
            return from_url(f"{root}/{quote(prefix)}" if prefix else root, client_options=client, retry_config=retry)
        except ValueError as error:
            raise PlaceError(
                f"{root} names no object store ({_reason(error)}); check the URL's host or bucket"
            ) from None


def forget_stores() -> None:
    """Connect anew: after a change of the environment."""
    connect.cache_clear()
