"""A flow in a process of its own, for a caller that lives on.

A notebook keeps its event loop, its signals, its memory and its Ray; nothing of a flow is left in it. The process
writes one JSON object per line to a pipe: how far it is, and how it ended. What it made is in the run folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from flows.config.base import ConfigBase, checked
from flows.config.run import RerunConfig, SegmentConfig
from flows.errors import ERRORS, FlowError
from flows.lifecycle.environment import quiet_environment
from flows.lifecycle.prefect_server import PR_SET_PDEATHSIG
from flows.lifecycle.stopping import sigterm_as_error
from flows.reporting.progress import Listener, Progress

_KINDS: dict[str, type[ConfigBase]] = {"segment": SegmentConfig, "rerun": RerunConfig}
_TAIL_BYTES = 2000


def run_in_child_process(name: str, config: ConfigBase, on_progress: Listener) -> None:
    """Run the flow of that name to its end.

    An interrupt (Ctrl-C, or a notebook's button) lets the tiles in flight end; a second one ends all at once.

    Raises:
        TilingError, UnetCoreError, FlowError, OSError: what the flow raised, by its own name.
        KeyboardInterrupt: it was interrupted.
    """
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "flows.api.child_process", name, str(writer), str(os.getpid())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place or str(Path.cwd()) for place in sys.path)}
    with os.fdopen(reader, "rb") as news, tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=(writer,),
                start_new_session=True,  # an interrupt in the terminal is passed on, once
            )
        finally:
            os.close(writer)
        try:
            ended = _listen(process, config, news, on_progress)
            process.wait()
        except BaseException:
            _stop(process, news)
            raise
        if ended is None:
            size = os.fstat(log.fileno()).st_size
            tail = os.pread(log.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES)).decode(errors="replace")
            raise FlowError(
                f"the process that segments ended with code {process.returncode} and said "
                f"{' '.join(tail.split()) or 'nothing'}; the same call resumes"
            )
    _raise_if_failed(ended)


def _listen(
    process: subprocess.Popen[bytes], config: ConfigBase, news: IO[bytes], on_progress: Listener
) -> dict[str, Any] | None:
    """Pass progress on; returns how the flow ended, None where the process ended without reporting."""
    assert process.stdin is not None
    try:
        with process.stdin as asked:
            asked.write(config.model_dump_json().encode())
    except BrokenPipeError:
        return None
    for line in news:
        message: dict[str, Any] = json.loads(line)
        if "progress" not in message:
            return message
        on_progress(Progress(**message["progress"]))
    return None


def _stop(process: subprocess.Popen[bytes], news: IO[bytes]) -> None:
    """Let the tiles in flight end; interrupted again, don't."""
    try:
        process.send_signal(signal.SIGINT)
        news.read()
        process.wait()
    except KeyboardInterrupt:
        process.kill()
        process.wait()
        raise


def _raise_if_failed(ended: dict[str, Any]) -> None:
    """Raise what the flow raised: the nearest of its kinds that is known here."""
    if "message" not in ended:
        return
    known = {kind.__name__: kind for root in ERRORS for kind in _with_subclasses(root)}
    for kind in ended["kinds"]:
        if kind in known:
            raise known[kind](ended["message"])
    raise FlowError(f"a bug, please report it: {ended['message']}")


def _with_subclasses(root: type[Exception]) -> Iterator[type[Exception]]:
    """Those that are made of a message alone."""
    if "__init__" not in vars(root) or root is OSError:
        yield root
    if root is not OSError:
        for kind in root.__subclasses__():
            yield from _with_subclasses(kind)


def main() -> None:
    """Run the flow inside the child process."""
    name, descriptor, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _end_with(parent)
    os.set_inheritable(descriptor, False)
    quiet_environment()
    from flows.launch import run_flow

    with os.fdopen(descriptor, "w", encoding="utf-8") as pipe:

        def say(**message: object) -> None:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

        try:
            with sigterm_as_error():
                config = checked(_KINDS[name], json.loads(sys.stdin.read()))
                run_flow(name, config, lambda progress: say(progress=asdict(progress)))
        except BrokenPipeError:
            return  # nobody listens any more
        except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets it)
            kinds = [kind.__name__ for kind in type(error).__mro__]
            is_known = isinstance(error, ERRORS)
            say(kinds=kinds, message=str(error) if is_known else "".join(traceback.format_exception(error)))
        else:
            say(ended=name)


def _end_with(parent: int) -> None:
    """Linux: stop calmly when the caller's process dies, also by a kill."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    main()
