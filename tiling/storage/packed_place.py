"""Names of files in a zip, tar or gzip file, as GDAL and as URLs spell them, brought to one: `scene.zip!/B04.jp2`."""

from __future__ import annotations

import re
from pathlib import Path

from tiling.errors import PlaceError

_GDAL = re.compile(r"/vsi(?:zip|tar|gzip)/(?P<rest>.*)", re.DOTALL)
_URL = re.compile(r"(?:zip|tar|gzip|gz)://(?P<rest>.*)", re.DOTALL)
_BRACED = re.compile(r"\{(?P<archive>[^{}]+)\}(?P<inner>.*)", re.DOTALL)
_REMOTE = re.compile(r"/vsi[a-z0-9_]+|[a-z0-9+]+://")
_SCHEMES = re.compile(r"(?:zip|tar|gzip|gz)\+[a-z0-9]+://")


def unpacked_name(text: str) -> str:
    """The name of a place with that of a file within another in one spelling; all else stays as it is.

    >>> unpacked_name("zip:///data/scene.zip!/B04.jp2")
    '/data/scene.zip!/B04.jp2'

    Raises:
        PlaceError: it leads into a file that lies on the web, or in another archive.
    """
    if _SCHEMES.match(text):
        raise PlaceError(_LOCAL.format(text.partition("://")[0]))
    named = _URL.fullmatch(text) or _GDAL.fullmatch(text)
    if named is None:
        return text
    rest = named["rest"]
    if _REMOTE.search(rest):
        raise PlaceError(_LOCAL.format(text[: named.start("rest")]))
    if named.re is _URL:
        return rest
    if braced := _BRACED.fullmatch(rest):
        return _joined(Path(braced["archive"]), braced["inner"])
    # Paths have lost the second slash of what begins at the root.
    for name in (rest, f"/{rest.lstrip('/')}"):
        parts = Path(name).parts
        for end in range(1, len(parts) + 1):
            archive = Path(*parts[:end])
            if archive.is_file():
                return _joined(archive, "/".join(parts[end:]))
    raise PlaceError(
        f"{text}: leads to no file on this machine's disks that is a zip, tar or gzip file; correct the path"
    )


_LOCAL = (
    "a name that begins with {}: images in a zip, tar or gzip file are read from disks, and from none within another; "
    "download it, and give it as scene.zip!/inner/file.tif"
)


def _joined(archive: Path, inner: str) -> str:
    inner = inner.strip("/")
    return f"{archive}!/{inner}" if inner else str(archive)
