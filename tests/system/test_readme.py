"""The README's commands and its Python, in their order, as a stranger pastes them who has nothing but the program."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
from cli import free_port, tissue
from pasting import nothing, paste, paste_until

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (overtile .*)$", README, re.MULTILINE)
LASTING = {"view": "showing", "serve": "pages:"}
"""Commands that end when they are stopped, and what begins the line that says that they are there."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slide that is named, and a folder of slides."""
    found = tmp_path_factory.mktemp("stranger")
    about = "Aperio Image Library v11\n768x512 |AppMag = 20|MPP = 0.5"
    tifffile.imwrite(
        found / "slide.svs", tissue(512, 768), photometric="rgb", tile=(256, 256), compression="jpeg",
        description=about, metadata=None,
    )  # fmt: skip
    (found / "slides").mkdir()
    shutil.copy(found / "slide.svs", found / "slides")
    os.utime(found / "slides/slide.svs", (0, 0))  # no night waits for it to settle
    return found


@pytest.mark.slow
def test_its_commands_work_in_their_order(folder: Path) -> None:
    late = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=12)).astimezone().strftime("--until %H:%M")
    more = {"archive": late, "view": "--no-browser", "serve": f"--port {free_port()}"}
    named = {command.split()[1] for command in COMMANDS}
    assert named >= {"segment", "view", "rerun", "verify", "archive", "serve", "models"}
    for command in COMMANDS:
        name = command.split()[1]
        if name in LASTING:
            ended = paste_until(LASTING[name], f"{command} {more[name]}", folder)
            assert ended in {0, 128 + signal.SIGINT}, command
            continue
        ended = paste(command, folder, more.get(name, ""))
        assert ended.returncode == 0, (command, ended.stderr)
    assert (folder / "runs/slide/report.html").is_file()
    assert (folder / "segmented/slides/slide.svs/mask.ome.zarr").is_dir()


@pytest.mark.slow
def test_its_python_works(folder: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    looked_at = "assert result.complete and result.labels.shape == (512, 512) and len(result.objects())"
    subprocess.run(
        [sys.executable, "-c", f"{code}\n{looked_at}"], cwd=folder, env=nothing(folder), timeout=240, check=True
    )
