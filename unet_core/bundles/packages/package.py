"""Package: the files of a folder or of a ZIP, read by name and within bounds."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from unet_core.errors import BundleError

_TEXT_LIMIT = 4_000_000
_WEIGHTS_LIMIT = 2**31
_FAULTS = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, KeyError)


@dataclass(frozen=True, slots=True)
class Package:
    """A folder, or a ZIP with its files at the top or in one folder.

    Raises BundleError from each method for a file that is absent, damaged, too large, or outside the package.
    """

    path: Path

    def has(self, name: str) -> bool:
        return self._member(name) is not None if self.path.is_file() else (self.path / name).is_file()

    def first(self, names: Iterable[str]) -> str | None:
        """The first of some files that is there."""
        return next((name for name in names if self.has(name)), None)

    def described(self, name: str) -> dict[str, Any]:
        """A JSON or YAML file that holds a mapping; nothing in it is more than numbers, texts and lists."""
        text = self.read(name, _TEXT_LIMIT)
        try:
            found = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise self._fault(
                name, f"is no {name.rpartition('.')[2]} ({' '.join(str(error).split())[:100]})"
            ) from error
        if not isinstance(found, dict):
            raise self._fault(name, "holds no mapping")
        return {str(key): value for key, value in found.items()}  # pyright: ignore[reportUnknownArgumentType]

    def read(self, name: str, limit: int = _WEIGHTS_LIMIT) -> bytes:
        """The bytes of one file."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "://" in name or not path.parts:
            raise BundleError(
                f"package {str(self.path)!r} names the file {name[:200]!r}, which is not in it: download it into the "
                f"package, and name it there"
            )
        try:
            return self._of_zip(name, limit) if self.path.is_file() else self._of_folder(name, limit)
        except _FAULTS as error:
            raise self._fault(name, f"can't be read ({' '.join(str(error).split())[:100]})") from error

    def save(self, name: str, folder: Path) -> Path:
        """A copy of one file in `folder`, under its last name."""
        copied = folder / PurePosixPath(name).name
        copied.write_bytes(self.read(name))
        return copied

    def _of_folder(self, name: str, limit: int) -> bytes:
        file = self.path / name
        if not file.resolve().is_relative_to(self.path.resolve()):
            raise self._fault(name, "is a link out of the package")
        if file.stat().st_size > limit:
            raise self._fault(name, f"is larger than {limit} bytes")
        return file.read_bytes()

    def _of_zip(self, name: str, limit: int) -> bytes:
        with zipfile.ZipFile(self.path) as archive, archive.open(self._member(name) or name) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise self._fault(name, f"is larger than {limit} bytes")
        return content

    def _member(self, name: str) -> str | None:
        """The full name of a member, at the top or below one folder."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
        except _FAULTS as error:
            raise self._fault(name, f"can't be read ({error})") from error
        wanted = name.removeprefix("./")
        return next((full for full in names if wanted in (full, full.partition("/")[2])), None)

    def _fault(self, name: str, what: str) -> BundleError:
        return BundleError(f"package {str(self.path)!r}: {name[:200]!r} {what}; download or copy the package again")
