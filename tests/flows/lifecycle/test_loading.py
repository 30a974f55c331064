"""Modules load without collections of garbage, which go on afterwards and leave another's process as it was."""

from __future__ import annotations

import gc
import json
import subprocess
import sys

from flows.lifecycle.loading import uncollected

COMMAND = """
import gc, json
from flows.lifecycle.loading import uncollected
seen = []
gc.callbacks.append(lambda phase, _: seen.append(phase))
with uncollected(own_process=True):
    import http.client, email.mime.text, unittest.mock, xml.dom.minidom
    during = len(seen)
first = gc.get_freeze_count()
with uncollected():
    more = [[] for _ in range(1000)]
print(json.dumps([during, first, gc.get_freeze_count(), gc.isenabled()]))
"""


def test_a_commands_process_never_looks_again_at_what_it_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, check=True)
    during, first, then, is_on = json.loads(done.stdout)
    assert during == 0
    assert 10_000 < first <= then - 1000
    assert is_on


def test_anothers_process_keeps_its_garbage_collector_as_it_was() -> None:
    assert gc.get_freeze_count() == 0
    with uncollected():
        assert not gc.isenabled()
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, 0)
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_commands_load_without_what_only_some_of_them_need() -> None:
    code = "import sys, flows.cli; print(*{'zarr', 'dask', 'torch', 'ray', 'prefect', 'PIL'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
