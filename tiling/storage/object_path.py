"""Places in an object store, by URL: `s3://`, `gs://`, `az://`, and `https://` or `http://` to read from.

One library talks to all stores: obstore. Credentials come from the environment alone (AWS_*, GOOGLE_*, AZURE_*) or
from the machine's own role; a URL that carries some is refused, because it would be written into cards and logs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import SplitResult, urlsplit

import obstore

from tiling.errors import CutError, PlaceError, StorageError
from tiling.storage.connection import FIRST_BACKOFF_SECONDS, TRIES, connect, store_errors, with_retries
from tiling.storage.object_facts import ObjectFacts, Tag
from tiling.storage.redirects import SCHEMES as READ_ONLY_SCHEMES
from tiling.storage.web_object import bytes_of, facts_of

if TYPE_CHECKING:
    from obstore import GetOptions, ListResult, ObjectMeta, PutMode
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az", *READ_ONLY_SCHEMES)


def _split(url: str) -> SplitResult:
    """The parts of a URL; PlaceError where it has none."""
    try:
        parts = urlsplit(url)
        if parts.port != 0:
            return parts
    except ValueError:
        pass
    # What is wrong stays unsaid: the text may hold a password.
    raise PlaceError(
        f"a URL of {url.partition('://')[0]}:// is malformed (host, brackets or port): give "
        f"{'://…, '.join(SCHEMES)}://… with a plain host or bucket, and a port from 1 to 65535"
    )


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """One name in an object store, with the part of `pathlib.Path` that a run needs.

    Attributes:
        root: the store, such as `s3://bucket`.
        key: the object's name in it as it was typed, without a slash at either end.
        public_only: whether a description on another server led to it, so that its own has to be a public one.

    Every method may raise `StorageError`, once the store has failed for longer than the retries last.
    """

    root: str
    key: str
    public_only: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, url: str) -> ObjectPath:
        """Read a URL.

        Raises:
            PlaceError: a URL that is malformed or has credentials, a query or no bucket; none is repeated.
        """
        parts = _split(url)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if "@" in parts.netloc:
            raise PlaceError(
                f"a URL of {place} holds a user or password: it would be written into the run's card and logs; leave "
                f"it out and set the usual environment variables (AWS_ACCESS_KEY_ID, …)"
            )
        if parts.query or parts.fragment:
            raise PlaceError(
                f"a URL of {place} holds a query or fragment (? or #), which may carry a signature: it would be "
                f"written into the run's card and logs; give the plain URL, and credentials in the environment"
            )
        if parts.scheme not in SCHEMES or not parts.netloc:
            raise PlaceError(f"{url!r} is no place in an object store; use {'://…, '.join(SCHEMES)}://…")
        return cls(place, "/".join(part for part in parts.path.split("/") if part))

    def __truediv__(self, name: str) -> ObjectPath:
        added = [part for part in name.split("/") if part not in {"", "."}]
        return replace(self, key="/".join([*filter(None, [self.key]), *added]))

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
        return replace(self, key=self.key.rpartition("/")[0])

    @property
    def store(self) -> ObjectStore:
        return connect(self.root)

    @property
    def is_on_web(self) -> bool:
        """True if it lies on a web server, from which it can only be read."""
        return self.root.startswith(READ_ONLY_SCHEMES)

    def resolve(self) -> ObjectPath:
        return self

    def facts(self) -> ObjectFacts:
        """Size and identity; `FileNotFoundError` where there is no such object."""
        if self.is_on_web:
            return facts_of(str(self), public_only=self.public_only)

        def ask() -> ObjectFacts:
            with store_errors(self):
                return ObjectFacts.of(obstore.head(self.store, self.key))

        return with_retries(ask)

    def read_bytes(self) -> bytes:
        """The whole object; `FileNotFoundError` where there is none."""
        return self.read_with_facts()[0]

    def read_with_facts(self) -> tuple[bytes, ObjectFacts]:
        """The whole object and what is known of just these bytes."""
        return bytes_of(str(self), public_only=self.public_only) if self.is_on_web else self._get({})

    def read_range(self, start: int, count: int, e_tag: str | None) -> bytes:
        """Bytes from `start` on, fewer at the object's end; `ChangedError` where it has another tag by now."""
        if self.is_on_web:
            return bytes_of(str(self), slice(start, start + count), e_tag, public_only=self.public_only)[0]
        options: GetOptions = {"range": (start, start + count)}
        if e_tag is not None:
            options["if_match"] = e_tag
        return self._get(options)[0]

    def _get(self, options: GetOptions) -> tuple[bytes, ObjectFacts]:
        def ask() -> tuple[bytes, ObjectFacts]:
            with store_errors(self):
                found = obstore.get(self.store, self.key, options=options)
                return bytes(found.bytes()), ObjectFacts.of(found.meta)

        return with_retries(ask)

    def write_bytes(self, data: bytes) -> None:
        """Write the object; a put is whole or not at all."""
        self.put(data)

    def put_file(self, file: Path) -> None:
        """Write the object from a local file of any size, part by part; it appears when all parts are there."""
        self.expect_writable()

        def ask() -> None:
            with store_errors(self):
                obstore.put(self.store, self.key, file)

        with_retries(ask)

    def put(self, data: bytes, *, only_if: Tag | None = None, only_new: bool = False) -> Tag:
        """Write the object under a condition, and return its new tag.

        Raises:
            ChangedError: it isn't new, or isn't what `only_if` describes any more.
        """
        mode: PutMode = "create" if only_new else "overwrite"
        if only_if is not None:
            known = {"e_tag": only_if.e_tag, "version": only_if.version}
            mode = cast("PutMode", {name: value for name, value in known.items() if value is not None})
        self.expect_writable()

        def ask() -> Tag:
            with store_errors(self):
                done = obstore.put(self.store, self.key, data, mode=mode)
            return Tag(done["e_tag"], done["version"])

        return with_retries(ask)

    def expect_writable(self) -> None:
        """Refuse what can only be read."""
        if self.is_on_web:
            raise PlaceError(f"{self} can only be read; write to a folder, s3://, gs:// or az://")

    def _expect_listed(self) -> None:
        """Refuse to ask a web server what lies below an address: there is no request for that in HTTP."""
        if self.is_on_web:
            raise StorageError(
                f"{self}: a web server doesn't say what lies there; give single files, a folder, s3://, gs:// or az://"
            )

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
        self._expect_listed()

        def ask() -> ListResult[Sequence[ObjectMeta]]:
            with store_errors(self):
                return obstore.list_with_delimiter(self.store, self.key or None)

        found = with_retries(ask)
        for key in (*found["common_prefixes"], *(meta["path"] for meta in found["objects"])):
            yield ObjectPath(self.root, str(key))

    def descendants(self) -> Iterator[ObjectPath]:
        """Every object below, at any depth, in the order of names."""
        return (path for path, _ in self.listed())

    def listed(self) -> Iterator[tuple[ObjectPath, ObjectFacts]]:
        """Every object below with its size and tag, from the listing alone: no request per object.

        A listing that is cut resumes where it was.
        """
        self._expect_listed()
        last: str | None = None
        for left in reversed(range(TRIES)):
            try:
                with store_errors(self):
                    for batch in obstore.list(self.store, self.key or None, offset=last, chunk_size=1000):
                        for meta in batch:
                            last = meta["path"]
                            yield ObjectPath(self.root, last), ObjectFacts.of(meta)
                return
            except CutError:
                if not left:
                    raise
                time.sleep(FIRST_BACKOFF_SECONDS)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Delete the object; stores don't tell whether there was one."""
        try:
            self._delete([self.key])
        except FileNotFoundError:
            if not missing_ok:
                raise

    def move_tree(self, target: ObjectPath, last: str) -> None:
        """Move everything below to another name of the same store, the object called `last` at the end; locks stay."""
        assert self.root == target.root
        found = (path.key for path in self.descendants())
        movable = (key for key in found if not key.startswith(f"{self.key}/driver.lock"))
        keys = sorted(movable, key=lambda key: key == f"{self.key}/{last}")
        for key in keys:
            self._copy(key, f"{target.key}/{key[len(self.key) + 1 :]}")
        for start in range(0, len(keys), 1000):
            self._delete(keys[start : start + 1000])

    def _copy(self, source: str, target: str) -> None:
        def ask() -> None:
            with store_errors(self):
                obstore.copy(self.store, source, target)

        with_retries(ask)

    def delete_tree(self) -> None:
        """Delete everything below."""
        keys = [path.key for path in self.descendants()]
        for start in range(0, len(keys), 1000):
            self._delete(keys[start : start + 1000])

    def _delete(self, keys: list[str]) -> None:
        def ask() -> None:
            with store_errors(self):
                obstore.delete(self.store, keys)

        with_retries(ask)
