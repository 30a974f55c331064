"""Environments of the peers, one each, made on demand under `.benchmarks/envs`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
ENVIRONMENTS = ROOT / ".benchmarks" / "envs"
INSTALL_SECONDS = 1800


class PeerError(Exception):
    """An environment that can't be made: pip's last words."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment: its requirements file, and what is installed without its dependencies."""

    name: str
    unchecked: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        return ENVIRONMENTS / self.name / "bin" / "python"

    @property
    def requirements(self) -> Path:
        return HERE / f"{self.name}.txt"

    def ensure(self) -> Path:
        """Make the environment, or do nothing where it is as asked; returns its interpreter.

        Raises:
            PeerError: pip can't install it.
        """
        wanted = self._digest()
        stamp = ENVIRONMENTS / self.name / ".installed"
        if stamp.is_file() and stamp.read_text() == wanted:
            return self.python
        self._run([sys.executable, "-m", "venv", str(ENVIRONMENTS / self.name)])
        # torch is the same for all: nothing that depends on it may bring another one.
        constraint = ["--constraint", str(HERE / "torch.txt")]
        self._pip([*constraint, "--requirement", str(self.requirements)])
        if self.unchecked:
            self._pip(["--no-deps", *self.unchecked])
        stamp.write_text(wanted)
        return self.python

    def versions(self) -> dict[str, str]:
        """Installed packages by name."""
        command = [str(self.python), "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
        pairs = (line.partition("==") for line in listed.splitlines())
        return {name.lower().replace("_", "-"): version for name, _, version in pairs}

    def _digest(self) -> str:
        files = (self.requirements, HERE / "common.txt", HERE / "torch.txt")
        text = "".join(file.read_text() for file in files) + " ".join(self.unchecked) + sys.version
        return hashlib.sha256(text.encode()).hexdigest()

    def _pip(self, arguments: list[str]) -> None:
        self._run([str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments])

    def _run(self, command: list[str]) -> None:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.CalledProcessError as error:
            raise PeerError(f"environment {self.name}: {(error.stderr or '').strip()[-1500:]}") from error
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"environment {self.name}: pip took more than {INSTALL_SECONDS} s") from error


@dataclass(frozen=True, slots=True)
class Peer:
    """A library that segments large images, and how it is run here."""

    key: str
    label: str
    environment: Environment
    module: str
    tile_px: int
    package: str
    note: str = ""


MONAI = Environment("monai")
TIATOOLBOX = Environment("tiatoolbox", ("tiatoolbox==2.1.3", "torchvision==0.28.0", "timm==1.0.27"))
DASK = Environment("dask")
TOOLBELT = Environment("toolbelt")
PLOT = Environment("plot")

OVERRIDE = "pins torch < 2.13; runs here with torch 2.13 against its pin"
PEERS = (
    Peer("toolbelt-512", "pytorch-toolbelt, 512/384, pyramid", TOOLBELT, "toolbelt_tiles", 512, "pytorch-toolbelt"),
    Peer("monai-512", "MONAI sliding window, 512, overlap 0.25, gaussian", MONAI, "monai_window", 512, "monai"),
    Peer("monai-1024", "MONAI sliding window, 1024, overlap 0.25, gaussian", MONAI, "monai_window", 1024, "monai"),
    Peer(
        "tiatoolbox-512",
        "TIAToolbox SemanticSegmentor, 512 → 320",
        TIATOOLBOX,
        "tiatoolbox_segmentor",
        512,
        "tiatoolbox",
        OVERRIDE,
    ),
    Peer("dask-1024", "dask map_overlap, 1024 + 96, exact", DASK, "dask_overlap", 1024, "dask"),
)
