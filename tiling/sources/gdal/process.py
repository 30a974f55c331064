"""Process that reads one raster with GDAL on behalf of another, bounded in time and memory."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any, cast

from tiling.errors import SourceError
from tiling.sources.gdal.formats import files_beside

START_SECONDS = 120
READ_SECONDS = 60
"""Seconds that one answer may take, of which each is about some megabytes of pixels."""
MEMORY_BYTES = 512 * 1024**2
"""Memory that the process may take beyond its libraries."""
LIBRARY_BYTES = 128 * 1024**2

_CACHE_BYTES = 64 * 1024**2
_CHILD = Path(__file__).with_name("child.py")
_MOST_LETTERS = 140
_PIECE_BYTES = 1024**2
_MOST_LINE_BYTES = 4 * 1024**2
_BESIDE = ("GTiff", "MEM")
"""Drivers of what lies beside an image: overviews and masks."""
_OPTIONS = {
    "GDAL_CACHEMAX": _CACHE_BYTES,
    "GDAL_NUM_THREADS": "1",
    "GDAL_PAM_ENABLED": "YES",
    "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE",
    "GDAL_HTTP_MAX_RETRY": "0",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none-is-read",
    "PROJ_NETWORK": "OFF",
}
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "GDAL_DATA", "PROJ_DATA", "PROJ_LIB")
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "GDAL_DRIVER_PATH": "disable"}


class GdalProcess:
    """The process and its pipes. One thread asks at a time: the caller sees to that."""

    def __init__(self, path: Path, driver: str) -> None:
        asked: dict[str, Any] = {
            "path": str(path),
            "folder": str(path.parent),
            "files": [str(each) for each in (path, *files_beside(path))],
            "driver": driver,
            "beside": _BESIDE,
            "options": _OPTIONS,
            "memory_bytes": MEMORY_BYTES,
            "seconds": READ_SECONDS,
        }
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_CHILD), json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, **_ENVIRONMENT},
        )
        self._is_new, self._rest = True, bytearray()
        self._owner = os.getpid()
        self.close = weakref.finalize(self, _end, self._process, self._owner)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytearray]:
        """The answer to a request, and the bytes that belong to it.

        Raises:
            SourceError: GDAL refuses, and can be asked again; or the process has died or takes too long, and is closed.
        """
        seconds = START_SECONDS + READ_SECONDS if self._is_new else READ_SECONDS
        until = time.monotonic() + seconds
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._line(until)
            data = self._data(int(answer.get("bytes", 0)), until)
        except TimeoutError as error:
            self.close()
            raise SourceError(f"GDAL takes longer than {seconds} s for one read; convert it to a GeoTIFF") from error
        except (OSError, EOFError, ValueError) as error:
            raise SourceError(f"GDAL ends with {self._ending()} when it reads it: {_REMEDY}") from error
        except BaseException:
            self.close()  # what is still to come would be taken for the next answer
            raise
        self._is_new = False
        if "error" in answer:
            text = "".join(c if c.isprintable() else " " for c in str(answer["error"]))
            text = " ".join(text.split())[:_MOST_LETTERS]
            raise SourceError(f"GDAL can't read it ({text}); is it whole?")
        return answer, data

    @property
    def is_open(self) -> bool:
        """True if it can be asked; a fork of the process that started it can't."""
        return self.close.alive and self._owner == os.getpid() and self._process.poll() is None

    def _line(self, until: float) -> dict[str, Any]:
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) > _MOST_LINE_BYTES:
                raise ValueError("the line has no end")
            self._receive_some(until)
        line, self._rest = self._rest[:end], self._rest[end + 1 :]
        return cast("dict[str, Any]", json.loads(line))

    def _data(self, count: int, until: float) -> bytearray:
        while len(self._rest) < count:
            self._receive_some(until)
        data, self._rest = self._rest, bytearray()
        if len(data) > count:
            raise ValueError("more than was asked for")
        return data

    def _receive_some(self, until: float) -> None:
        assert self._process.stdout is not None
        pipe, waiting = self._process.stdout.fileno(), select.poll()
        waiting.register(pipe, select.POLLIN)
        if not waiting.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError
        if not (piece := os.read(pipe, _PIECE_BYTES)):
            raise EOFError
        self._rest += piece

    def _ending(self) -> str:
        """Signal or exit code of the process, once nothing is left of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self.close()
        code = self._process.returncode
        if code == -signal.SIGALRM:
            return f"{READ_SECONDS} s of one read"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


_REMEDY = "it is damaged or hostile, or the system took the memory back; convert it to a GeoTIFF"


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if owner != os.getpid():
        return  # of a fork, whose parent still reads
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
