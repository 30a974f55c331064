"""Figures that Prometheus takes and the dashboard asks for are those that are exported."""

from __future__ import annotations

import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

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


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool: apt-get install prometheus")
    return found


def test_the_dashboard_counts_failed_tiles_from_a_series_first_value_on(promtool: str, tmp_path: Path) -> None:
    query = dashboard_queries()["Failed tiles"]
    assert "increase(" not in query, "a series is born at its first value, which is no increase"
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


def test_alerts_ask_for_exported_figures() -> None:
    (file,) = read_yaml(DEPLOY / "prometheus" / "rules.yaml")
    (group,) = file["groups"]
    exported = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in (*GAUGES, *NIGHT_GAUGES)}
    assert {name for rule in group["rules"] for name in re.findall(r"\bray_\w+", rule["expr"])} <= exported


def test_alerts_fire_in_the_nights_that_they_are_for(promtool: str) -> None:
    rules, tests = (DEPLOY / "prometheus" / name for name in ("rules.yaml", "rules_test.yaml"))
    run_tool(promtool, "check", "rules", rules)
    run_tool(promtool, "test", "rules", tests)
    (file,) = read_yaml(tests)
    tried = {check["alertname"] for each in file["tests"] for check in each["alert_rule_test"] if check["exp_alerts"]}
    (group,) = read_yaml(rules)[0]["groups"]
    assert tried == {rule["alert"] for rule in group["rules"]}, "every alert fires in some night"


def dashboard_queries() -> dict[str, str]:
    """The first query of every panel, by the panel's title."""
    return {panel["title"]: panel["targets"][0]["expr"] for panel in dashboard()["panels"]}


def test_the_dashboard_asks_for_metrics_that_are_exported() -> None:
    shown = dashboard()
    exported = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in (*GAUGES, *NIGHT_GAUGES)}
    exported |= {f"ray_{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count")}
    queries = [target["expr"] for panel in shown["panels"] for target in panel["targets"]]
    queries += [each["query"]["query"] for each in shown["templating"]["list"] if each["type"] == "query"]
    asked = {name for query in queries for name in re.findall(r"\bray_\w+", query)}
    assert asked <= exported
    assert exported <= asked, "every figure is shown somewhere"


def test_prometheus_takes_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    plain = [query.replace("$__range", "1h").replace("$run", ".*").replace("$archive", ".*") for query in queries]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(plain)]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    run_tool(promtool, "check", "rules", tmp_path / "rules.json")


def test_the_dashboard_is_as_grafana_documents_it() -> None:
    """Its JSON model: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/."""
    panels, variables = dashboard()["panels"], dashboard()["templating"]["list"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        cells = set(product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])))
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names)
    rows = {y for _, y in taken}
    assert rows == set(range(max(rows) + 1)), "no gap between panels"
    known = {each["name"] for each in variables} | {"__range"}
    asked = set(re.findall(r"\$\{?(\w+)", json.dumps([panels, [each.get("datasource") for each in variables]])))
    assert asked <= known
    assert known - asked == set(), "every variable chooses something"
    assert all(each["refresh"] in {1, 2} for each in variables), "filled when it opens, or with the time shown"


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana" / "overtile.json").read_text())
