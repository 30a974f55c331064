"""Figures for Prometheus, scraped from a real Ray node, and logs that name what they are about."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from unittest import mock

import pytest
import ray
from cli import free_port

from flows.reporting import metrics
from flows.reporting.logs import JsonFormatter, about
from flows.reporting.metrics import NightMetrics, Queue, RunMetrics, label_of
from flows.reporting.progress import Progress
from flows.worker.result import TileResult

REPORT_MILLISECONDS = 200


@pytest.fixture(scope="module")
def exporter() -> Iterator[str]:
    """Where an embedded Ray, set up as the pool sets it up, exports its figures."""
    port = free_port()
    with mock.patch.dict(os.environ, {"RAY_metrics_report_interval_ms": str(REPORT_MILLISECONDS)}):
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=80_000_000,
            _metrics_export_port=port,
            _node_ip_address="127.0.0.1",
        )
        try:
            yield f"http://127.0.0.1:{port}/metrics"
        finally:
            ray.shutdown()


@pytest.fixture(autouse=True)
def no_run_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_named", set())


def scrape(url: str, until: str) -> str:
    """The page, once it holds a text."""
    page, deadline = "", time.monotonic() + 30
    while time.monotonic() < deadline:
        with urllib.request.urlopen(url, timeout=5) as answer:
            page = answer.read().decode()
        if until in page:
            return page
        time.sleep(0.2)
    pytest.fail(f"{until!r} is not exported; there are {sorted(set(re.findall(r'^ray_overtile[a-z_]+', page, re.M)))}")


def value(page: str, name: str, **labels: str) -> float:
    """The one sample of that name with these labels."""
    found = [line for line in page.splitlines() if line.startswith(f"{name}{{")]
    found = [line for line in found if all(f'{key}="{wanted}"' in line for key, wanted in labels.items())]
    assert len(found) == 1, (name, labels, found)
    return float(found[0].rpartition(" ")[2])


def test_a_run_is_exported_as_the_dashboard_asks_for_it(exporter: str) -> None:
    figures = RunMetrics("slide-7")
    queue = Queue(to_do=5, ready=3, workers=2)
    for index in range(4):
        figures.add(TileResult(index, "digest", 1000, {"read": 0.02, "compute": 0.5, "write": 0.0}), queue)
    figures.add(TileResult(4, None, 0, {}, "broken"), queue)
    figures.flush(queue)
    page = scrape(exporter, 'state="failed"')
    assert value(page, "ray_overtile_tiles_total", run="slide-7", state="done") == 4
    assert value(page, "ray_overtile_tiles_total", run="slide-7", state="failed") == 1
    assert value(page, "ray_overtile_pixels_total", run="slide-7") == 4000
    assert value(page, "ray_overtile_tiles_to_do", run="slide-7") == 5
    assert value(page, "ray_overtile_ready_tiles", run="slide-7") == 3
    assert value(page, "ray_overtile_workers", run="slide-7") == 2
    assert value(page, "ray_overtile_stage_seconds_count", run="slide-7", stage="compute") == 4
    assert value(page, "ray_overtile_worked_seconds_total", run="slide-7", stage="compute") == pytest.approx(2)
    assert value(page, "ray_overtile_stage_seconds_bucket", run="slide-7", stage="read", le="0.03") == 4


def test_a_night_is_exported_by_its_archive(exporter: str) -> None:
    figures = NightMetrics("ward-7")
    figures.show(Progress("segment", done=0, total=30, unit="slides"))
    figures.show(Progress("segment", done=12, total=30, failed=2, unit="slides", left_seconds=90.0))
    page = scrape(exporter, "ray_overtile_night_left_seconds")
    by_state = {state: value(page, "ray_overtile_night_slides", state=state) for state in ("done", "failed", "to do")}
    assert by_state == {"done": 10, "failed": 2, "to do": 18}
    assert value(page, "ray_overtile_night_left_seconds", archive="ward-7") == 90


@pytest.mark.usefixtures("exporter")
def test_figures_cost_the_driver_little() -> None:
    figures, queue = RunMetrics("cost"), Queue(1, 1, 1)
    result = TileResult(0, "digest", 1000, {"stage": 0.1, "read": 0.02, "compute": 0.5, "write": 0.1})
    started = time.thread_time()
    for _ in range(1000):
        figures.add(result, queue)
    # A bound against blunders, hundreds of times a loaded machine's figure, and no measurement.
    assert (time.thread_time() - started) / 1000 < 0.01


def test_an_archive_of_many_slides_makes_few_series() -> None:
    labels = {label_of(f"slide-{number}") for number in range(10_000)}
    assert len(labels) == metrics.RUNS_NAMED + 1
    assert metrics.OTHER_RUNS in labels
    assert label_of("slide-3") == "slide-3"


def test_a_hostile_name_makes_a_plain_label() -> None:
    assert label_of("a\nb\x1b[2J") == "a_b_[2J"
    assert len(label_of("x" * 1000)) == 64


# Logs


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("flows.segment", logging.INFO, __file__, 1, message, None, None)
    made.__dict__.update(extra)
    return made


def test_a_line_names_run_slide_and_tile() -> None:
    with about(run="runs/a", slide="slides/a.svs"):
        line = JsonFormatter().format(record("tile failed", tile="3,12", reason="unreadable\nstrip", secret="no"))
    assert "\n" not in line
    entry = json.loads(line)
    assert (
        entry.items()
        >= {
            "level": "info",
            "logger": "flows.segment",
            "message": "tile failed",
            "run": "runs/a",
            "slide": "slides/a.svs",
            "tile": "3,12",
            "reason": "unreadable\nstrip",
        }.items()
    )
    assert "secret" not in entry
    assert entry["time"].endswith("+00:00")
    assert "run" not in json.loads(JsonFormatter().format(record("later")))


def test_a_traceback_stays_on_its_records_line() -> None:
    try:
        raise OSError("disk")
    except OSError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    entry = json.loads(JsonFormatter().format(made))
    assert entry["exception"].endswith("OSError: disk")


def test_the_environment_decides_and_twice_is_once() -> None:
    program = (
        "import logging; from flows.reporting.logs import configure_logs; configure_logs(); configure_logs(); "
        "logging.getLogger('flows.x').info('hello'); logging.getLogger('other').info('not')"
    )
    ended = {
        mode: subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OVERTILE_LOG": mode},
            capture_output=True,
            text=True,
            check=True,
        )
        for mode in ("json", "")
    }
    (line,) = ended["json"].stderr.splitlines()
    assert json.loads(line)["message"] == "hello"
    assert ended[""].stderr == ""
