"""Name of an image in a zip, tar or gzip file: `scene.zip`, or `scene.zip!/folder/B04.jp2` of what lies in it.

The second is rasterio's spelling; those of GDAL (`/vsizip/…`) and of URLs (`zip://…`) become it where a place is named
(`tiling.storage.packed_place`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiling.errors import SourceError

MARK = "!"
PACKED = "packed"
"""Kind of an image whose files are one packed file, whatever is in it."""
_HEAD_BYTES = 512
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b")
_TAR_AT = 257
_TAR_MAGIC = b"ustar"


@dataclass(frozen=True, slots=True)
class PackedName:
    """A packed file, and the path of what is meant in it; empty for all of it."""

    archive: Path
    inner: str

    @property
    def identity(self) -> str:
        """Identity that changes with the file's size, as that of an open file does."""
        return f"{self.archive.stat().st_size} {self.inner}"

    def within(self, inner: str) -> Path:
        """The name of something in the same file."""
        return Path(f"{self.archive}{MARK}/{inner}")


def packed_name(path: Path) -> PackedName | None:
    """A path as the name of a packed image; None of all else, and of a path at which something else lies."""
    try:
        if path.is_file():
            return PackedName(path, "") if is_packed(path) else None
        if MARK not in str(path) or path.exists():
            return None
        return _split(str(path))
    except OSError:
        return None  # longer than a file's name can be, or out of reach


def expect_packed(path: Path) -> None:
    """Refuse a name of something in a file that is no zip, tar or gzip file.

    Raises:
        SourceError: it is one.
    """
    if MARK not in path.as_posix():
        return
    archive = Path(str(path).partition(MARK)[0])
    try:
        is_none = archive.is_file() and not path.exists() and packed_name(path) is None
    except OSError:
        return  # longer than a file's name can be
    if is_none:
        raise SourceError(f"{path}: {archive.name} is no zip, tar or gzip file; correct the path")


def is_packed(file: Path) -> bool:
    """True of a zip, tar or gzip file, by its content.

    Raises:
        OSError: it can't be read.
    """
    with file.open("rb", buffering=0) as opened:
        head = opened.read(_HEAD_BYTES)
    return head.startswith(_MAGIC) or head[_TAR_AT : _TAR_AT + len(_TAR_MAGIC)] == _TAR_MAGIC


def _split(text: str) -> PackedName | None:
    at = text.find(MARK)
    while at >= 0:
        archive = Path(text[:at])
        if archive.is_file() and is_packed(archive):
            return PackedName(archive, text[at + 1 :].strip("/"))
        at = text.find(MARK, at + 1)
    return None
