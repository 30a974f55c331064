"""A Containerfile's steps without a container engine: each stage in a root folder of its own, from nothing but a base.

The base is this machine's system and Python, mounted read-only where the base image would be; everything that the
steps add goes into the new root. It needs root, and knows the instructions that `deploy/Containerfile` uses.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM = ("usr", "bin", "sbin", "lib", "lib64")
# The second because this machine's Python was built for another folder, and finds its library by that.
BASE = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LD_LIBRARY_PATH": "/usr/local/lib"}
NOBODY = ("setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", "--no-new-privs")


@dataclass(slots=True)
class Stage:
    """A root folder that instructions have been carried out in."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(BASE))
    arguments: dict[str, str] = field(default_factory=dict[str, str])
    folder: str = "/"
    user: str = "root"

    def inside(self, path: str) -> Path:
        return self.root / (Path(self.folder) / path).relative_to("/")


def build(stages: Sequence[Sequence[str]], context: Path, roots: Path, arguments: Mapping[str, str]) -> Stage:
    """Carry all stages out; returns the last. `arguments` are build arguments and, as PIP_…, the settings of pip."""
    built: dict[str, Stage] = {}
    stage = Stage(roots)
    for number, lines in enumerate(stages):
        stage = _new_stage(roots / str(number))
        for line in lines:
            _carry_out(stage, line, context, built, arguments)
        name = re.search(r" AS (\w+)$", lines[0])
        built[name[1] if name else str(number)] = stage
    return stage


def run_in(
    stage: Stage, command: Sequence[str], *, read_only: bool = False, more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a stage's root, as its user; `read_only` mounts the root so, with a fresh /tmp.

    What is mounted is mounted in a namespace of the command's own, and gone with it.
    """
    nobody = NOBODY if stage.user != "root" else ()
    inside = shlex.join(["chroot", str(stage.root), *nobody, "/bin/bash", "-c", 'cd "$0" && exec "$@"', stage.folder])
    lines = ["set -eu", *_mounts(stage.root, read_only=read_only), f"PATH={stage.environment['PATH']}"]
    script = "\n".join([*lines, f"exec {inside} {shlex.join(command)}"])
    return subprocess.run(
        [shutil.which("unshare") or "unshare", "--mount", "/bin/bash", "-c", script],
        env={**stage.environment, **(more or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def _mounts(root: Path, *, read_only: bool) -> Iterator[str]:
    """The commands that put the base inside the root."""
    if read_only:
        yield f"mount --bind {root} {root}"
    folders = [name for name in SYSTEM if not (root / name).is_symlink()]
    for source, at in [*((f"/{name}", name) for name in folders), (sys.base_prefix, "usr/local")]:
        yield f"mount --bind {source} {root}/{at}"
        yield f"mount -o remount,ro,bind {root}/{at}"
    for folder in _folders_of_pip():
        yield f"mount --bind {folder} {root}{folder}"
        yield f"mount -o remount,ro,bind {root}{folder}"
    yield f"mount --rbind /proc {root}/proc"
    yield f"mount --rbind /dev {root}/dev"
    yield f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp"
    if read_only:
        yield f"mount -o remount,ro,bind {root}"


def _new_stage(root: Path) -> Stage:
    for name in ("proc", "dev", "tmp", "etc", "home", "opt"):
        (root / name).mkdir(parents=True)
    for name in SYSTEM:
        system = Path("/") / name
        if system.is_symlink():
            (root / name).symlink_to(system.readlink())
        else:
            (root / name).mkdir()
    for folder in _folders_of_pip():
        (root / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)
    for name in (
        "passwd",
        "group",
        "shadow",
        "gshadow",
        "login.defs",
        "nsswitch.conf",
        "ld.so.cache",
        "ssl",
        "resolv.conf",
        "hosts",
    ):
        source = Path("/etc") / name
        if source.is_dir():
            shutil.copytree(source, root / "etc" / name, symlinks=True)
        elif source.exists():
            shutil.copy2(source, root / "etc" / name)
    return Stage(root)


def _carry_out(
    stage: Stage, line: str, context: Path, built: Mapping[str, Stage], arguments: Mapping[str, str]
) -> None:
    word, _, rest = line.partition(" ")
    match word:
        case "ARG":
            name, _, default = rest.partition("=")
            stage.arguments[name] = arguments.get(name, default)
        case "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                stage.environment[name] = value.replace("${PATH}", stage.environment["PATH"])
        case "WORKDIR":
            stage.folder = rest
            stage.inside(".").mkdir(parents=True, exist_ok=True)
        case "USER":
            stage.user = rest
        case "COPY":
            _copy(stage, rest.split(), context, built)
        case "RUN" if rest.startswith("apt-get "):
            pass  # the base is this machine's system, read-only: whether the packages are enough shows elsewhere
        case "RUN":
            given = {name: value for name, value in {**os.environ, **arguments}.items() if name.startswith("PIP_")}
            ended = run_in(stage, ["/bin/bash", "-o", "pipefail", "-c", rest], more={**stage.arguments, **given})
            if ended.returncode:
                raise AssertionError(f"{rest}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}")
        case "FROM" | "SHELL" | "HEALTHCHECK" | "CMD":
            pass
        case _:
            raise AssertionError(f"{word} is not known here")


def _copy(stage: Stage, words: Sequence[str], context: Path, built: Mapping[str, Stage]) -> None:
    source = context
    if words[0].startswith("--from="):
        source, words = built[words[0].partition("=")[2]].root, words[1:]
    *names, target = words
    for name in names:
        path = source / name.lstrip("/")
        wanted = stage.inside(target) / path.name if target.endswith("/") else stage.inside(target)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, wanted, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy2(path, wanted)


def pip_settings() -> dict[str, str]:
    """Where this machine's pip finds packages, as pip's own environment variables; indexes are searched in order."""
    asked = [sys.executable, "-m", "pip", "config", "list"]
    text = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in {"index-url", "extra-index-url", "find-links"}:
            found["PIP_" + name.replace("-", "_").upper()] = " ".join(value.strip("'").split("\\n")).strip()
    return found


def _folders_of_pip() -> list[Path]:
    """Local folders that it finds them in."""
    words = [word.removeprefix("file://") for value in pip_settings().values() for word in value.split()]
    folders = [Path(word) for word in words if word.startswith("/")]
    # An index's pages lie beside its files.
    return [folder.parent if folder.name == "simple" else folder for folder in folders]
