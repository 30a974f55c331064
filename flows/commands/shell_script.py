"""Script that a shell completes by, as the library writes it, but for zsh's first try."""

from __future__ import annotations

from typer import _completion_shared

_FIRST_TRY = """
if [[ ${funcstack[1]} == _%(prog_name)s ]]; then
  %(complete_func)s "$@"
fi
"""
"""Zsh loads the file when a word is completed for the first time, as the function that is to complete it. The library's
file then only says which function completes the next one, and the first Tab of each shell gave nothing."""


def complete_from_the_first_try() -> None:
    """Let `--install-completion` and `--show-completion` give zsh a script that completes the first word too."""
    scripts: dict[str, str] = _completion_shared._completion_scripts  # pyright: ignore[reportPrivateUsage]
    if _FIRST_TRY not in scripts["zsh"]:
        scripts["zsh"] += _FIRST_TRY
