"""`overtile segment`: one image into a run folder."""

from __future__ import annotations

from typing import Any

from flows.commands.options import (
    takes,
)
from flows.commands.run_and_report import run_and_report
from flows.config.run import SegmentConfig


@takes(SegmentConfig)
def segment_command(**asked: Any) -> None:
    """Segment one image; the same command again resumes."""
    run_and_report("segment", SegmentConfig.model_validate(asked))
