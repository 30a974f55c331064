"""Child that unpacks a zip, tar or gzip file into an empty folder, and may be ended in place of its parent.

Run as a file, with what it may do as its argument, in JSON; answers with a line of JSON. It imports the standard
library alone. Nothing is written but plain files below the folder, under names that are looked at first.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import lzma
import os
import resource
import signal
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

Data = IO[bytes] | gzip.GzipFile

_PIECE_BYTES = 1024**2
_BLOCK_BYTES = 512
_DIE_WITH_PARENT = 1
_ENCRYPTED = 0x1
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 99: "AES"}
_FOLDER_MODE, _LINK_MODE, _KIND_MODE = 0o040000, 0o120000, 0o170000
_MOST_PARTS, _MOST_NAME_BYTES, _MOST_PATH_BYTES = 32, 255, 2000
_NOT_ITSELF = ("__MACOSX",)
_SHOWN_LETTERS = 120
_CUT = "it is cut or damaged ({}); download it again"
_REMEDY = "unpack it yourself, if you trust it, and give the folder"
_LEAST_BYTES_A_SECOND = 4 * 1024**2
_SPARE_BYTES = 64 * 1024
"""Beyond what the writing process may take, so that its own count speaks first."""


class RefusedError(Exception):
    """A file that isn't unpacked, and why."""


class Target:
    """The folder into which is unpacked, and how much may still be."""

    def __init__(self, folder: str, most_bytes: int, free_bytes: int, most_members: int) -> None:
        self._folder = Path(folder)
        self._most_bytes, self._free_bytes, self._most_members = most_bytes, free_bytes, most_members
        self._files, self._folders = set[str](), {""}
        self._bytes = 0

    def member(self, name: str) -> str | None:
        """A file's name below the folder; None of what systems add for themselves.

        Raises:
            RefusedError: it leads elsewhere, can't be shown, or stands twice.
        """
        parts = name.split("/")
        while parts and parts[0] == ".":
            parts = parts[1:]
        if parts and (parts[0] in _NOT_ITSELF or parts[-1] == ".DS_Store" or parts[-1].startswith("._")):
            return None
        shown = ascii(name[:_SHOWN_LETTERS])
        if not name.isprintable() or "\\" in name:
            raise RefusedError(f"its member {shown} has a name with a backslash, or that can't be shown; {_REMEDY}")
        if any(part in {"", ".", ".."} for part in parts) or not parts:
            raise RefusedError(f"its member {shown} leads out of it; it is hostile or damaged, get it from its source")
        if (
            len(parts) > _MOST_PARTS
            or len(name.encode()) > _MOST_PATH_BYTES
            or any(len(part.encode()) > _MOST_NAME_BYTES for part in parts)
        ):
            raise RefusedError(f"its member {shown}… has a name that no disk holds; {_REMEDY}")
        own, above = "/".join(parts), ["/".join(parts[:end]) for end in range(len(parts))]
        if own in self._files or own in self._folders or not self._files.isdisjoint(above):
            raise RefusedError(f"its member {shown} stands twice in it, and nothing says which counts; {_REMEDY}")
        self._files.add(own)
        self._folders.update(above)
        if len(self._files) > self._most_members:
            raise RefusedError(f"it holds more than {self._most_members} files; {_REMEDY}")
        return own

    def expect_room(self, more: int) -> None:
        """Hold what it is going to unpack to against the bounds."""
        whole = self._bytes + more
        if whole > self._most_bytes:
            raise RefusedError(
                f"it unpacks to {whole / 1e9:.1f} GB and more, and {self._most_bytes / 1e9:.1f} GB are allowed for a "
                f"file of its size: it is damaged or hostile; {_REMEDY}"
            )
        if whole > self._free_bytes:
            raise NoRoomError(whole)

    def write(self, name: str, data: Data, claimed: int | None) -> None:
        """Unpack a file, which may hold no more than was claimed of it."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        written = 0
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            while piece := data.read(_PIECE_BYTES):
                written += len(piece)
                if claimed is not None and written > claimed:
                    break
                self.expect_room(written)
                file.write(piece)
        if claimed is not None and written != claimed:
            raise RefusedError(_CUT.format(f"{name[:_SHOWN_LETTERS]!a} isn't as long as it says"))
        self._bytes += written

    def expect_some(self) -> None:
        if not self._files:
            raise RefusedError("it holds no file; download it again")


class NoRoomError(Exception):
    """A folder with less space than is needed, which is the one argument."""


def unpack_zip(archive: str, target: Target) -> None:
    with zipfile.ZipFile(archive) as file:
        found = list(_zip_members(file, target))
        target.expect_room(sum(info.file_size for _, info in found))
        target.expect_some()
        allow_seconds(sum(info.file_size for _, info in found))
        for name, info in found:
            with file.open(info) as data:
                target.write(name, data, info.file_size)


def _zip_members(file: zipfile.ZipFile, target: Target) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Files of a zip file by their names below the folder, looked at before any is unpacked."""
    end = 0
    for info in sorted(file.infolist(), key=lambda each: each.header_offset):
        shown, mode = ascii(info.orig_filename[:_SHOWN_LETTERS]), info.external_attr >> 16
        if info.is_dir() and not info.file_size:
            continue
        if mode & _KIND_MODE == _LINK_MODE:
            raise RefusedError(f"its member {shown} is a link; {_REMEDY}")
        if info.flag_bits & _ENCRYPTED:
            raise RefusedError(f"its member {shown} is encrypted; unpack it with its password, and give the folder")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise RefusedError(f"its member {shown} is compressed by {method}, and Deflate alone is read; {_REMEDY}")
        if info.header_offset < end:
            raise RefusedError(f"its member {shown} lies over another: it is damaged or hostile, get it anew")
        end = info.header_offset + info.compress_size
        if (name := target.member(info.orig_filename)) is not None:
            yield name, info


def unpack_tar(data: Data, target: Target) -> None:
    """Unpack a tar file from its begin to its end, in one pass."""
    with tarfile.open(fileobj=data, mode="r:") as file:
        for info in file:
            shown = ascii(info.name[:_SHOWN_LETTERS])
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                kind = "a link" if info.islnk() or info.issym() else "no plain file"
                raise RefusedError(f"its member {shown} is {kind}; {_REMEDY}")
            if (name := target.member(info.name)) is None:
                continue
            target.expect_room(info.size)
            allow_seconds(info.size)
            member = file.extractfile(info)
            assert member is not None
            with member:
                target.write(name, member, info.size)
        data.seek(file.offset)
        if data.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
            raise RefusedError(_CUT.format("its end is missing"))
    while data.read(_PIECE_BYTES):
        pass  # of a compressed one, whose checksum stands behind all of it
    target.expect_some()


def unpack_gzip(archive: str, name: str, target: Target) -> None:
    """Unpack one compressed file, or the tar file that it is."""
    allow_seconds(Path(archive).stat().st_size)
    with gzip.open(archive) as data:
        head = data.read(_BLOCK_BYTES)
        data.seek(0)
        if is_tar(head):
            unpack_tar(data, target)
            return
        own = target.member(name)
        assert own is not None
        target.write(own, data, None)


def is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def unpack(asked: dict[str, Any]) -> None:
    target = Target(asked["folder"], asked["most_bytes"], asked["free_bytes"], asked["most_members"])
    archive = asked["archive"]
    with Path(archive).open("rb") as file:
        head = file.read(_BLOCK_BYTES)
        if head.startswith(b"PK"):
            unpack_zip(archive, target)
        elif is_tar(head):
            file.seek(0)
            unpack_tar(file, target)
        else:
            unpack_gzip(archive, asked["name"], target)


def allow_seconds(count: int) -> None:
    """Let the process live long enough for so many bytes, on a slow disk too."""
    left = signal.alarm(0)
    signal.alarm(left + count // _LEAST_BYTES_A_SECOND)


def confine(asked: dict[str, Any]) -> None:
    """Bound the time, the memory and the files that are written."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(asked["seconds"])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + asked["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    written = min(asked["most_bytes"], max(0, asked["free_bytes"])) + _SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, written))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Unpack, and say what was wrong with it."""
    try:
        confine(asked)
        unpack(asked)
    except NoRoomError as error:
        return {"needed": error.args[0]}
    except RefusedError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"to list it takes more memory than such a file is given; {_REMEDY}"}
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        ValueError,
        LookupError,
        NotImplementedError,
        RuntimeError,
        RecursionError,
        gzip.BadGzipFile,
    ) as error:
        return {"error": _CUT.format(" ".join(f"{error}".split())[:_SHOWN_LETTERS] or type(error).__name__)}
    except OSError as error:
        return {"error": f"it can't be unpacked ({error.strerror or error})"}
    return {}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(json.loads(sys.argv[1]))))
