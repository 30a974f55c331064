"""Completion in zsh: the first word of a new shell too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ASKED = """
fpath=($1)
compdef() { registered=$1 }
_arguments() { print -r -- $registered $* }
words=(overtile segment x.svs -m ves)
CURRENT=$#words
autoload -Uz _overtile
_overtile
"""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_the_first_tab_of_a_zsh_completes(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("ZDOTDIR", None)
    install = ["zsh", "-fc", "overtile --install-completion; true"]  # which looks at what shell it is called from
    subprocess.run(install, env=environment, check=True, capture_output=True)
    command = ["zsh", "-fc", ASKED, "zsh", tmp_path / ".zfunc"]
    ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert ended.stdout == '_overtile_completion *: :(("vessels"))\n', ended.stderr
