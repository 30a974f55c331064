"""Client of the Hugging Face Hub's API: the files of a repository at a revision, and their bytes. Never imports torch.

It sends no token, so that none can leak; private and gated repositories are refused with the way out. The addresses
are those of https://huggingface.co/docs/hub/api: `/api/models/OWNER/NAME/revision/REVISION` and
`/OWNER/NAME/resolve/COMMIT/PATH`; `HF_ENDPOINT` names a mirror and `HF_HUB_OFFLINE` forbids asking, as they do for
`huggingface_hub`.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from unet_core.bundles.hub.model import HubModel
from unet_core.bundles.hub.paced_http import WAIT_SECONDS, TooSlowError, paced_opener
from unet_core.errors import BundleError
from unet_core.files import write_whole

ENDPOINT, OFFLINE = "HF_ENDPOINT", "HF_HUB_OFFLINE"
GRACE_SECONDS, BYTES_PER_SECOND = 60.0, 10_000.0
"""How long an answer may take: so many seconds, and one more for each so many bytes of it."""
_LISTING_LIMIT = 32_000_000
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file of a repository; `sha256` of those that git keeps elsewhere, `blob_id` is git's for the others."""

    name: str
    size: int
    blob_id: str
    sha256: str | None

    @property
    def digest(self) -> str:
        """Digest of its bytes."""
        return self.sha256 or self.blob_id


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one commit."""

    commit: str
    files: tuple[Listed, ...]


def listing(model: HubModel, kept: Path | None = None) -> Listing:
    """The files at a model's revision, at `main` where it names none; of a file that was kept, else asked for and kept.

    Raises:
        BundleError: the repository or the revision is not there, or the hub can't be reached or answers otherwise.
    """
    if kept is not None and kept.is_file():
        with kept.open("rb") as file:
            return _parsed(model, file.read())
    revision = quote(model.revision or "main", safe="")
    with _opened(model, f"/api/models/{model.repository}/revision/{revision}?blobs=true") as answer:
        content = answer.read(_LISTING_LIMIT)
    found = _parsed(model, content)
    if kept is not None:
        write_whole(kept, lambda file: file.write(content))
    return found


def open_file(model: HubModel, file: Listed) -> Any:
    """The bytes of a file, as a context; raises BundleError where the hub can't give them."""
    return _opened(model, f"/{model.repository}/resolve/{model.revision}/{quote(file.name)}")


def _parsed(model: HubModel, content: bytes) -> Listing:
    try:
        answer: dict[str, Any] = json.loads(content)
        found = Listing(str(answer["sha"]), tuple(_listed(each) for each in answer["siblings"]))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BundleError(
            f"model {str(model)!r}: {_endpoint()} answers with no list of files ({type(error).__name__}: {error}); see "
            f"{ENDPOINT}"
        ) from error
    if model.is_pinned and found.commit != model.revision:
        raise BundleError(
            f"model {str(model)!r}: {_endpoint()} answers for the commit {found.commit[:40]!r}; see {ENDPOINT}"
        )
    return found


def _listed(entry: dict[str, Any]) -> Listed:
    large: dict[str, Any] = entry.get("lfs") or {}
    file = Listed(str(entry["rfilename"]), int(entry["size"]), str(entry["blobId"]), large.get("sha256"))
    if file.size < 0 or _HEX.fullmatch(file.digest) is None:
        raise ValueError(f"{file.name} has no digest")
    return file


def _endpoint() -> str:
    return (os.environ.get(ENDPOINT) or "https://huggingface.co").rstrip("/")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _expect_secure(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _expect_secure(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost", "::1"}):
        raise BundleError(
            f"{address[:200]!r} is no https address, so anybody could change a model on its way; see {ENDPOINT}"
        )


@contextmanager
def _opened(model: HubModel, path: str) -> Generator[BinaryIO]:
    """An answer of the hub; failures of the connection, also while it is read, are one line."""
    endpoint = _endpoint()
    if os.environ.get(OFFLINE, "").upper() in {"1", "TRUE", "YES", "ON"}:
        raise BundleError(
            f"model {str(model)!r} is not in the cache, and {OFFLINE} forbids downloading it; unset that once"
        )
    _expect_secure(endpoint)
    request = urllib.request.Request(f"{endpoint}{path}", headers={"User-Agent": "overtile"})
    try:
        opener = paced_opener(GRACE_SECONDS, BYTES_PER_SECOND, _SafeRedirects())
        with opener.open(request, timeout=WAIT_SECONDS) as answer:
            yield cast("BinaryIO", answer)
    except HTTPError as error:
        raise BundleError(_refused(model, error)) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", error), TooSlowError):
            raise BundleError(
                f"model {str(model)!r}: {endpoint} answers too slowly: an answer has {GRACE_SECONDS:g} s, and one more "
                f"for each {BYTES_PER_SECOND / 1000:g} kB of it; try again later, or name a mirror in {ENDPOINT}"
            ) from error
        raise BundleError(
            f"model {str(model)!r}: {endpoint} can't be reached ({' '.join(str(error).split())[:200]}); try again "
            f"where there is a network, once: the files stay in the cache"
        ) from error


def _refused(model: HubModel, error: HTTPError) -> str:
    if error.code == http.client.NOT_FOUND and error.headers.get("X-Error-Code") == "RevisionNotFound":
        return f"model {str(model)!r}: {model.repository} has no revision {model.revision or 'main'!r}; correct it"
    if error.code in {http.client.UNAUTHORIZED, http.client.FORBIDDEN, http.client.NOT_FOUND}:
        return (
            f"model {str(model)!r}: there is no public repository {model.repository!r} on {_endpoint()}: correct the "
            f"name; of a private or gated one, download the folder with hf download and give that"
        )
    return f"model {str(model)!r}: {_endpoint()} answers {error.code} {error.reason}; try again later"
