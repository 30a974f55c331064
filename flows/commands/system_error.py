"""Errors of the operating system in a sentence of ours: the rule, the path and the remedy in place of `[Errno 2]`."""

from __future__ import annotations

import errno
import re

_OTHER = "choose another place"
_SENTENCES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("no room is left on the disk of {}", f"make room, or {_OTHER}"),
    errno.EDQUOT: ("this user's share of the disk of {} is used up", f"make room, or {_OTHER}"),
    errno.EROFS: ("{} is on a file system that can only be read", _OTHER),
    errno.EACCES: ("this user may not read or write {}", f"change its permissions, or {_OTHER}"),
    errno.EPERM: ("this user may not read or write {}", f"change its permissions, or {_OTHER}"),
    errno.ENOENT: ("{} is not there, and can't be made there", f"correct the path, or {_OTHER}"),
    errno.ENOTDIR: ("{} would lie in a file, and only folders hold files", f"correct the path, or {_OTHER}"),
    errno.EISDIR: ("{} is a folder, and a file is needed", "name a file"),
    errno.EEXIST: ("{} is there already, and is not overwritten", f"move it away, or {_OTHER}"),
    errno.ENAMETOOLONG: ("the name {} is longer than its file system takes", "choose a shorter one"),
    errno.ELOOP: ("the links of {} lead in a circle", "correct them, or name what they should lead to"),
    errno.EMFILE: ("this process has as many files open as it may, at {}", "raise the bound with ulimit -n"),
    errno.EIO: ("the disk of {} fails to read or write", f"look at the system's log, and {_OTHER}"),
}
_UNFINISHED = re.compile(r"(?<=/)\.(?P<name>[^/]+)\.[0-9a-f]{32}\.new$|^\.(?P<bare>[^/]+)\.[0-9a-f]{32}\.new$")
"""The name that a file has until it is whole, which means nothing to whoever named the file."""


def message_of(error: BaseException) -> str:
    """An error's message on one line; of a system's own error its rule, path and remedy."""
    if not isinstance(error, OSError) or type(error).__module__ != "builtins" or error.errno not in _SENTENCES:
        return str(error)
    rule, remedy = _SENTENCES[error.errno]
    paths = [path for path in (error.filename2, error.filename) if isinstance(path, str | bytes)]
    place = _shown(paths[0]) if paths else "the files of this command"
    return f"{rule.format(place)} ({error.strerror}): {remedy}"


def _shown(path: str | bytes) -> str:
    text = path.decode(errors="replace") if isinstance(path, bytes) else path
    return _UNFINISHED.sub(lambda found: found["name"] or found["bare"], text)
