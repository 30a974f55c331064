"""Figures that Prometheus takes and the dashboard asks for are those that are exported."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from manifests import (
    DEPLOY,
    cluster_specs,
    containers,
    groups,
    manifest,
    read_yaml,
    run_tool,
)

from flows.reporting.metrics import COUNTERS, GAUGES, HISTOGRAMS, NIGHT_GAUGES


def test_prometheus_takes_the_figures_of_every_ray_node_and_of_nothing_else() -> None:
    (file,) = read_yaml(DEPLOY / "prometheus" / "scrape.yaml")
    (job,) = file["scrape_configs"]
    (discovery,) = job["kubernetes_sd_configs"]
    assert discovery == {"role": "pod", "namespaces": {"names": [manifest("RayCluster")["metadata"]["namespace"]]}}
    (kept,) = (rule for rule in job["relabel_configs"] if rule.get("action") == "keep")
    assert kept["source_labels"] == [
        "__meta_kubernetes_pod_label_app_kubernetes_io_component",
        "__meta_kubernetes_pod_container_port_name",
    ]
    for spec in cluster_specs().values():
        for group in groups(spec):
            component = group["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
            ports = [port for each in containers(group["template"]["spec"]) for port in each.get("ports", [])]
            found = [port for port in ports if re.fullmatch(kept["regex"], f"{component};{port['name']}")]
            assert [str(port["containerPort"]) for port in found] == [group["rayStartParams"]["metrics-export-port"]]


def test_the_dashboard_counts_failed_tiles_from_a_series_first_value_on(tmp_path: Path) -> None:
    query = dashboard_queries()["Failed tiles"]
    assert "increase(" not in query, "a series is born at its first value, which is no increase"
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Prometheus) is not installed")
    # As exported: two drivers of one run, born within the hour; one that counts on; one that nobody exports any more.
    values = {"a": ("_x100 2x30", "_x110 1+0x3 3x5"), "b": ("5x110 7x20",), "c": ("5x10",)}
    series = [
        {"series": f'ray_overtile_tiles_total{{run="{run}",state="failed",WorkerId="{driver}"}}', "values": each}
        for run, drivers in values.items()
        for driver, each in enumerate(drivers)
    ]
    expected = [{"labels": '{run="a"}', "value": 5}, {"labels": '{run="b"}', "value": 2}]
    expression = query.replace("$__range", "1h").replace("$run", ".*")
    check = {"expr": expression, "eval_time": "120m", "exp_samples": expected}
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": [check]}]
    (tmp_path / "tests.json").write_text(json.dumps({"rule_files": [], "tests": tests}))
    run_tool(promtool, "test", "rules", tmp_path / "tests.json")


def test_alerts_ask_for_exported_figures_and_fire_when_they_should(tmp_path: Path) -> None:
    (file,) = read_yaml(DEPLOY / "prometheus" / "rules.yaml")
    (group,) = file["groups"]
    exported = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in (*GAUGES, *NIGHT_GAUGES)}
    assert {name for rule in group["rules"] for name in re.findall(r"\bray_\w+", rule["expr"])} <= exported
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Prometheus) is not installed")
    # One night that fails a tile and moves on, one that stands still, one without a worker, one that has ended.
    values = {
        'ray_overtile_tiles_total{run="moves",state="done"}': "0+5x120",
        'ray_overtile_tiles_total{run="moves",state="failed"}': "_x100 1x20",
        'ray_overtile_tiles_to_do{run="moves"}': "600-5x120",
        'ray_overtile_workers{run="moves"}': "2x120",
        'ray_overtile_tiles_total{run="stands",state="done"}': "0+5x60 300x60",
        'ray_overtile_tiles_to_do{run="stands"}': "90x120",
        'ray_overtile_workers{run="stands"}': "2x120",
        'ray_overtile_tiles_to_do{run="waits"}': "90x120",
        'ray_overtile_workers{run="waits"}': "0x120",
        'ray_overtile_tiles_total{run="ended",state="done"}': "300x120",
        'ray_overtile_tiles_to_do{run="ended"}': "0x120",
        'ray_overtile_workers{run="ended"}': "0x120",
    }
    values |= {
        'ray_overtile_night_slides{archive="ward",state="failed"}': "0x60 2x60",
        'ray_overtile_night_slides{archive="calm",state="failed"}': "0x120",
        'ray_overtile_night_left_seconds{archive="ward"}': "90000x120",
        'ray_overtile_night_left_seconds{archive="calm"}': "90000x60 3600x60",
    }
    alerts = {
        "OvertileTilesFailed": ("run", "moves"),
        "OvertileStalled": ("run", "stands"),
        "OvertileNoWorker": ("run", "waits"),
        "OvertileSlidesFailed": ("archive", "ward"),
        "OvertileNightIsLong": ("archive", "ward"),
    }
    checks = [
        {"expr": f'count by (alertname, {of}) (ALERTS{{alertname="{name}",alertstate="firing"}})', "eval_time": "115m"}
        | {"exp_samples": [{"labels": f'{{alertname="{name}",{of}="{which}"}}', "value": 1}]}
        for name, (of, which) in alerts.items()
    ]
    series = [{"series": name, "values": each} for name, each in values.items()]
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": checks}]
    rules = {"rule_files": [str(DEPLOY / "prometheus" / "rules.yaml")], "tests": tests}
    (tmp_path / "tests.json").write_text(json.dumps(rules))
    run_tool(promtool, "test", "rules", tmp_path / "tests.json")


def dashboard_queries() -> dict[str, str]:
    """The first query of every panel, by the panel's title."""
    dashboard = json.loads((DEPLOY / "grafana" / "overtile.json").read_text())
    return {panel["title"]: panel["targets"][0]["expr"] for panel in dashboard["panels"]}


def test_the_dashboard_asks_for_metrics_that_are_exported() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "overtile.json").read_text())
    exported = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in (*GAUGES, *NIGHT_GAUGES)}
    exported |= {f"ray_{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count")}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    asked = {name for query in queries for name in re.findall(r"\bray_\w+", query)}
    assert asked <= exported
    assert exported <= asked, "every figure is shown somewhere"
