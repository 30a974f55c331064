"""Refuse an environment that holds another version than the lock file names, or a package that it doesn't name.

    python installed_as_locked.py requirements.lock

The CUDA libraries that a CUDA build of torch brings are pinned by torch itself and are not in the lock.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

OWN = {"overtile", "pip"}
BROUGHT_BY_TORCH = re.compile(r"^(nvidia-|cuda-|triton$)")


def canonical(name: str) -> str:
    """PEP 503: one spelling of a project's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def public(version: str) -> str:
    """PEP 440: the version without its local part, as in 2.13.0+cpu."""
    return version.partition("+")[0]


def read_lock(text: str) -> dict[str, str]:
    """Version by name; comments and environment markers apart."""
    lines = (line.partition("#")[0].partition(";")[0].strip() for line in text.splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {canonical(name): version.strip() for name, _, version in pairs}


def differences(installed: dict[str, str], locked: dict[str, str]) -> list[str]:
    """One line per package that is not what the lock says."""
    found: list[str] = []
    for name, version in sorted(installed.items()):
        if name in OWN or BROUGHT_BY_TORCH.match(name):
            continue
        if name not in locked:
            found.append(f"{name} {version} is installed and not in the lock")
        elif public(version) != locked[name]:
            found.append(f"{name} {version} is installed, the lock says {locked[name]}")
    return found


def main() -> int:
    installed = {canonical(each.metadata["Name"]): each.version for each in distributions()}
    found = differences(installed, read_lock(Path(sys.argv[1]).read_text(encoding="utf-8")))
    sys.stderr.writelines(f"{line}\n" for line in found)
    sys.stdout.write(f"{len(installed)} packages installed, {len(found)} not as locked\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
