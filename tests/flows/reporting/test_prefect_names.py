"""Names in Prefect's pages: keys that Prefect takes and that no two archives share, and logs without tracebacks."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from prefect.exceptions import CancelledRun, FailedRun
from prefect.logging import get_logger

from flows.config.archive import ArchiveConfig
from flows.deployments import deployments_of
from flows.errors import IncompleteError
from flows.reporting.prefect_names import artifact_key, leave_out_tracebacks, name_flow_run
from tiling.errors import DiskError


@pytest.mark.parametrize("name", ["runs", "Ward 7 (2026)", "切片", "-", "a" * 300, "A_b.c"])
def test_a_key_is_one_that_prefect_takes(name: str) -> None:
    key = artifact_key("failed-slides", Path("/data") / name)
    assert key.startswith("failed-slides-")
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(key) <= 63


def test_two_archives_of_one_name_have_keys_of_their_own() -> None:
    assert artifact_key("night", Path("/a/runs")) != artifact_key("night", Path("/b/runs"))


def test_nothing_is_named_outside_of_a_flow() -> None:
    name_flow_run("night")


def test_expected_errors_are_logged_by_their_message_and_bugs_with_their_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    leave_out_tracebacks()
    leave_out_tracebacks()
    logger = logging.getLogger(get_logger("flow_runs").name)
    with caplog.at_level(logging.ERROR, logger.name):
        logger.addHandler(caplog.handler)
        returned = FailedRun("1 slide failed"), CancelledRun("stopped")  # the engine's, of states that a flow returned
        for error in (DiskError("the disk is full"), IncompleteError("1 failed", None), ValueError("a bug"), *returned):
            try:
                raise error
            except Exception as caught:
                logger.exception("Encountered exception during execution: %r", caught)
        logger.removeHandler(caplog.handler)
    said = {record.getMessage(): record.exc_info is not None for record in caplog.records}
    assert said == {
        "the disk is full": False,
        "1 failed": False,
        "Encountered exception during execution: ValueError('a bug')": True,
    }


def test_deployments_of_an_archive_can_be_told_apart_and_begin_with_its_options(tmp_path: Path) -> None:
    config = ArchiveConfig(source=str(tmp_path), out=tmp_path / "ward", model="vessels", notify="mail me")
    night, image, tiles = deployments_of(config, "0 1 * * *", None)
    assert [each.name for each in (night, image, tiles)] == ["ward-nights", "ward-one-image", "ward-single-tiles"]
    assert image.parameters["config"]["model"] == "vessels"
    assert image.parameters["config"]["out"].startswith(str(tmp_path / "ward"))
    assert "image" not in image.parameters["config"], "which image is the form's to say"
    assert tiles.parameters["config"]["run"] == f"{tmp_path}/ward/slides/"
    assert "mail me" not in str([each.parameters for each in (night, image, tiles)])
