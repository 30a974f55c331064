"""The flow that exports a finished run."""

from __future__ import annotations

from prefect import flow

from flows.config.export import ExportConfig
from flows.reporting.progress import enter
from flows.run.exports import export_here
from tiling.storage.place import Place


@flow(name="export-run", validate_parameters=False)
def export(config: ExportConfig) -> list[Place]:
    """Write what was asked for and doesn't show the mask yet; returns all files that were written."""
    enter("export")
    return export_here(config)
