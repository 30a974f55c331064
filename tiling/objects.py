"""Places in an object store, by URL: `s3://`, `gs://`, `az://`, and `https://` or `http://` to read from.

One library talks to all of them: obstore. Credentials come from the environment alone (AWS_*, GOOGLE_*, AZURE_*) or
from the machine's own role; a URL that carries some is refused, because it would be written into cards and logs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from tiling.errors import StorageError

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

SCHEMES = ("s3", "gs", "az", "https", "http")
READ_ONLY_SCHEMES = ("https", "http")
MAX_RETRIES = 8
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0
RETRY_SECONDS = 120.0
SILENCE_SECONDS = 30.0
"""How long a server may say nothing before the request is tried again."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_ENDPOINT", "GOOGLE_BASE_URL")


@dataclass(frozen=True, slots=True)
class Tag:
    """By what a store tells one content of an object from others, for conditional requests."""

    e_tag: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What a store says of one object without its bytes."""

    size_bytes: int
    modified: datetime
    tag: Tag

    @classmethod
    def of(cls, meta: ObjectMeta) -> ObjectFacts:
        return cls(meta["size"], meta["last_modified"], Tag(meta["e_tag"], meta["version"]))


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """One name in an object store, with the part of `pathlib.Path` that a run needs.

    Attributes:
        root: the store, such as `s3://bucket`.
        key: the object's name in it, without a slash at either end.

    Every method may raise `StorageError`, once the store has failed for longer than the retries last.
    """

    root: str
    key: str

    @classmethod
    def parse(cls, url: str) -> ObjectPath:
        """Read a URL.

        Raises:
            StorageError: a URL with credentials, a query or no bucket; it is never repeated in full.
        """
        parts = urlsplit(url)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if "@" in parts.netloc:
            raise StorageError(
                f"a URL of {place} holds a user or password: it would be written into the run's card and logs; leave "
                f"it out and set the usual environment variables (AWS_ACCESS_KEY_ID, …)"
            )
        if parts.query or parts.fragment:
            raise StorageError(
                f"a URL of {place} holds a query or fragment (? or #), which may carry a signature: it would be "
                f"written into the run's card and logs; give the plain URL, and credentials in the environment"
            )
        if parts.scheme not in SCHEMES or not parts.netloc:
            raise StorageError(f"{url!r} is no place in an object store; use {'://…, '.join(SCHEMES)}://…")
        plain = unquote(parts.path) if parts.scheme in READ_ONLY_SCHEMES else parts.path
        return cls(place, "/".join(part for part in plain.split("/") if part))

    def __truediv__(self, name: str) -> ObjectPath:
        added = [part for part in name.split("/") if part not in {"", "."}]
        return ObjectPath(self.root, "/".join([*filter(None, [self.key]), *added]))

    def __str__(self) -> str:
        return f"{self.root}/{self.key}" if self.key else self.root

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(self.root, self.key.rpartition("/")[0])

    @property
    def store(self) -> ObjectStore:
        return connect(self.root)

    def resolve(self) -> ObjectPath:
        return self

    def facts(self) -> ObjectFacts:
        """Size and identity; `FileNotFoundError` where there is no such object."""
        with store_errors(self):
            return ObjectFacts.of(obstore.head(self.store, self.key))

    def read_bytes(self) -> bytes:
        """The whole object; `FileNotFoundError` where there is none."""
        with store_errors(self):
            return bytes(obstore.get(self.store, self.key).bytes())

    def read_with_facts(self) -> tuple[bytes, ObjectFacts]:
        """The whole object and what is known of just these bytes."""
        with store_errors(self):
            found = obstore.get(self.store, self.key)
            return bytes(found.bytes()), ObjectFacts.of(found.meta)

    def read_range(self, start: int, count: int, e_tag: str | None) -> bytes:
        """Bytes from `start` on, fewer at the object's end; `ChangedError` where it has another tag by now."""
        options: GetOptions = {"range": (start, start + count)}
        if e_tag is not None:
            options["if_match"] = e_tag
        with store_errors(self):
            return bytes(obstore.get(self.store, self.key, options=options).bytes())

    def write_bytes(self, data: bytes) -> None:
        """Write the object; a put is whole or not at all."""
        self.put(data)

    def put(self, data: bytes, *, only_if: Tag | None = None, only_new: bool = False) -> Tag:
        """Write the object under a condition, and tell its new tag.

        Raises:
            ChangedError: it isn't new, or isn't what `only_if` describes any more.
        """
        mode: PutMode = "create" if only_new else "overwrite"
        if only_if is not None:
            known = {"e_tag": only_if.e_tag, "version": only_if.version}
            mode = cast("PutMode", {name: value for name, value in known.items() if value is not None})
        self.expect_writable()
        with store_errors(self):
            done = obstore.put(self.store, self.key, data, mode=mode)
        return Tag(done["e_tag"], done["version"])

    def expect_writable(self) -> None:
        """Refuse what can only be read."""
        if self.root.startswith(READ_ONLY_SCHEMES):
            raise StorageError(f"{self} can only be read; write to a folder, s3://, gs:// or az://")

    def is_file(self) -> bool:
        try:
            self.facts()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        return next(self.descendants(), None) is not None

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[ObjectPath]:
        """Everything directly below, folders of names included."""
        with store_errors(self):
            found = obstore.list_with_delimiter(self.store, self.key or None)
        for key in (*found["common_prefixes"], *(meta["path"] for meta in found["objects"])):
            yield ObjectPath(self.root, str(key))

    def descendants(self) -> Iterator[ObjectPath]:
        """Every object below, at any depth."""
        with store_errors(self):
            for batch in obstore.list(self.store, self.key or None, chunk_size=1000):
                for meta in batch:
                    yield ObjectPath(self.root, meta["path"])

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Delete the object; stores don't tell whether there was one."""
        try:
            with store_errors(self):
                obstore.delete(self.store, self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def delete_tree(self) -> None:
        """Delete everything below."""
        keys = [path.key for path in self.descendants()]
        for start in range(0, len(keys), 1000):
            with store_errors(self):
                obstore.delete(self.store, keys[start : start + 1000])


class AccessError(StorageError):
    """What the store refuses to these credentials, or to none."""


class ChangedError(StorageError):
    """A conditional request whose condition doesn't hold: somebody else wrote the object."""


@contextmanager
def store_errors(place: ObjectPath | str) -> Generator[None]:
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
        raise StorageError(f"{place}: the store failed ({_reason(error)}), also after retries") from None


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
        return from_url(f"{root}/{quote(prefix)}" if prefix else root, client_options=client, retry_config=retry)


def forget_stores() -> None:
    """Connect anew: after a change of the environment."""
    connect.cache_clear()
