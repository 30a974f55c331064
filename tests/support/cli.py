"""The console script in a process of its own, as a person runs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage
import tifffile
from numpy.typing import NDArray

from tiling.source import open_source
from tiling.storage.place import Place

OVERTILE = Path(sys.executable).parent / "overtile"


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Cli:
    """Runs `overtile` with Prefect's state in a folder of the test's own."""

    environment: dict[str, str]

    def run(self, *arguments: object, timeout: float = 240) -> Ended:
        ended = subprocess.run(
            [str(OVERTILE), *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def start(self, *arguments: object, log: Path = Path(os.devnull)) -> subprocess.Popen[bytes]:
        """Begin a command, which writes what it says into a file."""
        command = [str(OVERTILE), *map(str, arguments)]
        with log.open("wb") as file:
            return subprocess.Popen(command, env=self.environment, stdout=file, stderr=file)


def hear_signals() -> None:
    """In a child before it becomes a command: Ctrl-C and a hangup end it, though `nohup make test &` ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def clean_environment(prefect_home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "RAY_"))}
    return {**kept, "PREFECT_HOME": str(prefect_home), "RAY_worker_niceness": "0", "COLUMNS": "200", **more}


def tissue_photograph() -> Path:
    """Immunohistochemistry of human colon with hematoxylin counterstain, 512 x 512 px, from scikit-image."""
    return Path(skimage.__file__).parent / "data" / "ihc.png"


def tissue(height: int, width: int) -> NDArray[np.uint8]:
    """Real stained tissue of any size: the photograph, mirrored out."""
    with open_source(tissue_photograph()) as source:
        photograph = source.read(0, source.levels[0].box)
    more = ((0, max(0, height - 512)), (0, max(0, width - 512)), (0, 0))
    return np.pad(photograph, more, mode="symmetric")[:height, :width].astype(np.uint8)


def write_tissue(path: Path, height: int, width: int) -> Path:
    tifffile.imwrite(path, tissue(height, width), photometric="rgb", tile=(128, 128), compression="jpeg")
    return path


def on_disk(place: Place) -> Path:
    """The same, of a run that is in no object store."""
    assert isinstance(place, Path)
    return place


def mask_files(run: Path) -> dict[str, bytes]:
    """Every file of a run's mask, by name."""
    mask = run / "mask.ome.zarr"
    return {str(file.relative_to(mask)): file.read_bytes() for file in sorted(mask.rglob("*")) if file.is_file()}


def free_port() -> int:
    """A port of localhost that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
