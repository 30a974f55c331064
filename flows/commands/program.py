"""The program's name in the commands that it prints: `overtile` everywhere, and a line where no shell would find that.

Pages, tables and messages are read on other machines and other days too, so none of them holds this machine's path of
the program; a person at a terminal is told it once.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from flows.reporting.escaping import PlainConsole
from flows.reporting.terminals import is_live
from tiling.escaping import word

NAME = "overtile"


def tell_program(console: PlainConsole) -> None:
    """Say how the program is called here, where a command was shown to a person whose shell would not find it."""
    if PlainConsole.has_shown_command and is_live(sys.stdout) and (program := unlike_name(sys.argv[0])):
        console.print(f"({NAME} in such a command is {program} here)", soft_wrap=True)


def unlike_name(called: str) -> str:
    """The program as it was called, as one word, where its name on the PATH is nothing or another; else empty."""
    program, found = Path(called), shutil.which(NAME)
    if not program.is_file() or (found is not None and Path(found).samefile(program)):
        return ""
    return word(program.absolute())
