"""Prefect's own settings: the server that flows report to, and never one that Prefect starts by itself."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from flows.errors import ConfigError

if TYPE_CHECKING:
    from prefect.settings import Settings

_WITHOUT_SETTINGS = Path(__file__).parent
_LOCAL_FILES = (".env", "prefect.toml", "pyproject.toml")


def configured_api() -> str | None:
    """The API that this user has named, in the environment or in his active profile; None where there is none.

    Files of the working folder (`.env`, `prefect.toml`, `pyproject.toml`) name none: whoever can write there would
    choose whom this user's flows talk to. What is found stands in the environment afterwards, before which they yield.

    Raises:
        ConfigError: Prefect can't read its settings.
    """
    url = read_settings().api.url or None
    if url is not None:
        os.environ["PREFECT_API_URL"] = url
        read_settings()
    return url


def read_settings() -> Settings:
    """Have Prefect read its settings anew, and hold to them from now on.

    Raises:
        ConfigError: it can't.
    """
    # Prefect would start a server of its own wherever it finds no address, one without a password.
    for name in ("PREFECT_SERVER_EPHEMERAL_ENABLED", "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"):
        os.environ[name] = "false"
    try:
        # Prefect writes what it can't read to the terminal, line by line, before it raises it.
        with _outside_the_working_folder(), contextlib.redirect_stderr(io.StringIO()):
            from prefect.context import refresh_global_settings_context
            from prefect.settings import get_current_settings

            refresh_global_settings_context()
            return get_current_settings()
    except (ValueError, SystemExit) as error:
        raise ConfigError(
            f"Prefect can't read its settings ({' '.join(str(error).split())[:200]}): nobody knows which server flows "
            f"report to; correct the variables PREFECT_* or Prefect's profiles.toml"
        ) from error


def unused_files() -> list[str]:
    """Files of the working folder that say something to Prefect, which nothing here follows."""
    return [name for name in _LOCAL_FILES if _speaks_of_prefect(Path(name))]


def _speaks_of_prefect(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:
        return False
    if path.name == "pyproject.toml":
        return "[tool.prefect" in text
    return bool(text.strip()) if path.name == "prefect.toml" else "PREFECT_" in text.upper()


@contextlib.contextmanager
def _outside_the_working_folder() -> Generator[None]:
    """Prefect looks for files of settings in the working folder, where anybody may have put them."""
    before = os.open(".", os.O_RDONLY | os.O_DIRECTORY)  # a folder that is gone has no name to go back to
    try:
        os.chdir(_WITHOUT_SETTINGS)
        yield
    finally:
        os.fchdir(before)
        os.close(before)
