"""Parameters of a job file, a form or a deployment: a mistake is named, with the values that are allowed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from cli import Cli
from pydantic import BaseModel

from flows.config.archive import ArchiveConfig
from flows.config.base import checked
from flows.config.run import RerunConfig, SegmentConfig, VerifyConfig
from flows.errors import ConfigError
from tiling.errors import PlaceError

IMAGE = {"image": "a.tif", "out": "run"}


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [
        (SegmentConfig, {**IMAGE, "nope": 1}, "nope: there is no such key; known are image, out, model,"),
        (SegmentConfig, {"image": "a.tif"}, "out: a value is needed; The run folder"),
        (SegmentConfig, {**IMAGE, "image": 7}, "image: Value error, a path or a URL is needed, not 7"),
        (SegmentConfig, {**IMAGE, "image": None}, "image: Value error, a path or a URL is needed, not None"),
        (SegmentConfig, {**IMAGE, "core": -512}, "core: Input should be greater than 0, not -512; Side of a tile's"),
        (SegmentConfig, {**IMAGE, "core": 0}, "core: Input should be greater than 0, not 0"),
        (SegmentConfig, {**IMAGE, "core": "big"}, "core: Input should be a valid integer"),
        (SegmentConfig, {**IMAGE, "core": 1e400}, "core: Input should be a finite number, not inf"),
        (SegmentConfig, {**IMAGE, "workers": -1}, "workers: Input should be greater than 0, not -1"),
        (SegmentConfig, {**IMAGE, "level": -1}, "level: Input should be greater than or equal to 0, not -1"),
        (
            SegmentConfig,
            {**IMAGE, "precision": "float8"},
            "precision: Input should be 'auto', 'float32', 'bfloat16' or 'float16', not 'float8'",
        ),
        (SegmentConfig, {**IMAGE, "tta": ["d4"]}, "tta: Input should be 'none', 'flips' or 'd4', not ['d4']"),
        (SegmentConfig, {**IMAGE, "halo": "approximate:-3"}, "not 'approximate:-3'; exact, or approximate:PX"),
        (SegmentConfig, {**IMAGE, "staging": "perhaps"}, "staging: Input should be a valid boolean"),
        (SegmentConfig, {**IMAGE, "model": {"name": "nuclei"}}, "model: Input should be a valid string"),
        (SegmentConfig, ["a.tif"], "SegmentConfig: Input should be a valid dictionary"),
        (RerunConfig, {"run": "r", "tiles": [[1]]}, "tiles.0.1: a value is needed; Tiles as ROW,COL"),
        (RerunConfig, {"run": "r", "tiles": [["a", "b"]]}, "tiles.0.0: Input should be a valid integer"),
        (RerunConfig, {"run": "https://example.org/r"}, "https://example.org/r"),
        (VerifyConfig, {"run": "r", "seams": -4}, "seams: Input should be greater than or equal to 0, not -4"),
    ],
)
def test_a_mistake_is_named_with_what_may_be(kind: type[BaseModel], asked: Any, expected: str) -> None:
    with pytest.raises(Exception, match=r".") as refused:
        checked(kind, asked)
    message = str(refused.value)
    assert type(refused.value).__module__.startswith(("flows.", "tiling."))
    assert expected in message
    assert "\n" not in message


def test_what_is_long_or_of_several_lines_is_told_in_one_short_line() -> None:
    with pytest.raises(ConfigError) as refused:
        checked(SegmentConfig, {**IMAGE, "core": "9\n" * 5000})
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_what_is_right_passes_in_either_form() -> None:
    config = checked(SegmentConfig, {**IMAGE, "core": 64})
    assert config.core == 64
    assert checked(SegmentConfig, config) is config


def in_prefect(cli: Cli, tmp_path: Path, script: str) -> Any:
    """What a Python program that uses the flows prints, reporting to the session's Prefect server."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**cli.environment, "PREFECT_LOGGING_LEVEL": "CRITICAL"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_prefect_s_runs_and_deployments_refuse_it_too(cli: Cli, tmp_path: Path) -> None:
    called, state, asked = in_prefect(
        cli,
        tmp_path,
        """
        import json
        from prefect.client.orchestration import get_client
        from prefect.exceptions import PrefectHTTPStatusError
        from flows.errors import ConfigError
        from flows.segment import segment

        wrong = {"image": "a.tif", "out": "run", "nope": 1}
        try:
            segment(wrong)
        except ConfigError as error:
            called = str(error)
        state = segment(wrong, return_state=True)
        deployment = segment.to_deployment("nightly").apply()
        with get_client(sync_client=True) as client:
            try:
                client.create_flow_run_from_deployment(deployment, parameters={"config": wrong})
                asked = "taken"
            except PrefectHTTPStatusError as error:
                asked = error.response.text
        print(json.dumps([called, state.type.value, asked]))
        """,
    )
    assert called.startswith("nope: there is no such key; known are image, out, model,")
    assert state == "FAILED"
    assert "nope" in asked
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "source",
    [
        "s3://me:canary@bucket/slides",
        "s3://me:canary@bucket/slides/**/*.svs",
        "https://host/slides?sig=canary",
        "https://host/slides/*.svs?sig=canary",
    ],
)
def test_an_archive_in_a_url_with_credentials_is_refused_before_anybody_keeps_it(source: str) -> None:
    with pytest.raises(PlaceError) as refused:
        ArchiveConfig.model_validate({"source": source, "out": "out"})
    assert "canary" not in str(refused.value)
    assert ArchiveConfig.model_validate({"source": "s3://bucket/a?.svs", "out": "out"}).source == "s3://bucket/a?.svs"
