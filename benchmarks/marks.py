"""Marks of a command's start: when each step of it begins and ends, taken inside the command, whose imports stay lazy.

    python -m benchmarks.marks MARKS.json segment IMAGE --out RUN

runs `overtile segment …` and writes seconds since 1970 of each step's first call.
"""

from __future__ import annotations

import atexit
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

STEPS = {
    "Prefect's server: begin": "flows.lifecycle.prefect_server:EmbeddedServer.begin",
    "Ray: start": "flows.pool.cluster:Cluster._start_safely",
    "load flows and torch": "flows.launch:_load_flows",
    "Prefect's server: wait for its answer": "flows.lifecycle.prefect_server:EmbeddedServer.__enter__",
    "wait for Ray": "flows.pool.pool:Pool.__enter__",
    "plan": "flows.segment:prepared",
    "open, fingerprint": "flows.run.prepare:open_with_version",
    "load the model": "flows.run.prepare:load_model",
    "measure on a worker": "flows.pool.pool:Pool.tune",
    "foreground": "flows.run.prepare:skip_background",
    "create staged tiles": "tiling.runs.run:Run.create_staged",
    "a tile actor takes": "flows.pool.roster:Roster._take_in",
    "first tile": "flows.segment:record_result",
}
"""Steps, each with what is called for it, as `module:name` or `module:Class.name`."""


class Marks(MetaPathFinder):
    """Watches functions of modules as these are imported."""

    def __init__(self, steps: dict[str, str]) -> None:
        self.taken: dict[str, tuple[float, float]] = {}
        self._wanted: dict[str, list[tuple[str, str]]] = {}
        for step, where in steps.items():
            module, _, name = where.partition(":")
            self._wanted.setdefault(module, []).append((step, name))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del target
        if fullname not in self._wanted:
            return None
        steps = self._wanted.pop(fullname)
        for finder in sys.meta_path:
            spec = finder.find_spec(fullname, path) if finder is not self else None
            if spec is not None and spec.loader is not None:
                self._watch_when_loaded(spec.loader, steps)
                return spec
        return None

    def _watch_when_loaded(self, loader: Loader, steps: list[tuple[str, str]]) -> None:
        load = loader.exec_module

        def loaded(module: ModuleType) -> None:
            load(module)
            for step, name in steps:
                holder: Any = module
                *classes, last = name.split(".")
                for each in classes:
                    holder = getattr(holder, each)
                setattr(holder, last, self._marked(step, getattr(holder, last)))

        loader.exec_module = loaded

    def _marked(self, step: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def marked(*given: Any, **named: Any) -> Any:
            began = time.time()
            try:
                return work(*given, **named)
            finally:
                self.taken.setdefault(step, (began, time.time()))

        return marked


def main() -> None:
    file, began = Path(sys.argv[1]), time.time()
    marks = Marks(STEPS)
    sys.meta_path.insert(0, marks)
    sys.argv = ["overtile", *sys.argv[2:]]
    from flows.entry import main as command

    def write() -> None:
        file.write_text(json.dumps({"Python": (began, began), **marks.taken}), encoding="utf-8")

    atexit.register(write)  # the command ends the process
    command()


if __name__ == "__main__":
    main()
