"""Names in Prefect's pages: of flow runs, and keys of artifacts, by archive and night or by run."""

from __future__ import annotations

import hashlib
import logging
import re

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun, FailedRun
from pydantic import ValidationError

from flows.errors import ERRORS
from flows.reporting.escaping import plain
from flows.reporting.prefect_events import recorded
from tiling.storage.place import Place

LONGEST_SLUG = 40
_ENGINE_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def artifact_key(what: str, place: Place) -> str:
    """Key under which Prefect keeps the versions of one artifact: that of one archive or run, and of no other.

    >>> from pathlib import Path
    >>> artifact_key("failed-slides", Path("/data/Ward 7"))
    'failed-slides-ward-7-e1ac51'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", place.name.lower()).strip("-")[:LONGEST_SLUG].strip("-")
    digest = hashlib.sha256(str(place).encode(errors="surrogateescape")).hexdigest()[:6]
    return "-".join(part for part in (what, slug, digest) if part)


def name_flow_run(name: str) -> None:
    """Name the flow run that this is called in; outside of one, or where the server is away, nothing is named."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    flow_run = context.flow_run.id

    def rename() -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_name(flow_run, plain(name))

    recorded(rename)


class _CauseAlone(logging.Filter):
    """Takes the traceback from what Prefect's engine logs of expected errors, whose message says all.

    Of a flow that returned the state `Failed` or `Cancelled` the engine raises an error of its own, and says that it
    didn't expect it: the line before has the state and its message, and that is all.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, FailedRun | CancelledRun):
            return False
        if isinstance(error, (*ERRORS, ValidationError)):
            record.exc_info = record.exc_text = None
            record.msg, record.args = "%s", (plain(str(error)),)
        return True


def leave_out_tracebacks() -> None:
    """Have Prefect's engine log expected errors by their message alone; bugs keep their traceback."""
    for name in _ENGINE_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, _CauseAlone) for each in logger.filters):
            logger.addFilter(_CauseAlone())
