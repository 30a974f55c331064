# pyright: basic, reportMissingImports=false
"""The plot, from the raw figures: `python -m benchmarks.plot RESULTS`, in an environment with matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from benchmarks import table

OURS, PEER, LIMIT = "#0072b2", "#999999", "#e69f00"
INK = "#333333"


def draw(results: Path) -> Path:
    contest, growth = _page(results, "contest"), _page(results, "growth")
    panels = [(panel, page) for panel, page in ((_contest, contest), (_memory, growth)) if page is not None]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(6.5 * len(panels), 5), squeeze=False, layout="constrained", dpi=130
    )
    for (panel, page), axis in zip(panels, axes[0], strict=True):
        panel(page, axis)
        axis.spines[["top", "right"]].set_visible(False)
    target = results / "benchmark.png"
    figure.savefig(target)
    return target


def _contest(page: dict, axis: plt.Axes) -> None:
    rows = page["rows"]
    rates, best = table.medians(rows, table._rate), table.limits(rows)
    bars = [(row["label"], rates[row["key"]], PEER) for row in _first(rows, "peer") if row["key"] in rates]
    bars.sort(key=lambda bar: bar[1])
    for precision, (_, limit) in sorted(best.items(), reverse=True):
        found = table.fastest(rows, rates, precision)
        if found:
            bars.append((found[0], found[1], OURS))
        bars.append((f"the machine's limit, {precision}", limit, LIMIT))
    names, values, colours = zip(*bars, strict=True)
    drawn = axis.barh(names, [value / 1e6 for value in values], color=colours)
    axis.bar_label(drawn, fmt="%.2f", padding=3, color=INK)
    axis.margins(x=0.12)
    axis.set_xlabel("MPix/s, from file to labels on disk")
    axis.set_title(f"One slide of {page['side_px']}² px, {page['machine']['cores']} cores", loc="left")


def _memory(page: dict, axis: plt.Axes) -> None:
    rows = page["rows"]
    sides = sorted({row["side_px"] for row in rows})
    for kind, colour in (("driver", LIMIT), ("tile actor", OURS), ("stager", PEER)):
        peaks = [
            max(row["memory"]["by_kind"].get(kind, 0) for row in rows if row["side_px"] == side) / 1e6 for side in sides
        ]
        axis.plot(sides, peaks, "o-", color=colour)
        axis.annotate(kind, (sides[0], peaks[0]), xytext=(0, 9), textcoords="offset points", ha="left", color=INK)
    axis.set_xscale("log", base=2)
    axis.set_xticks(sides, [f"{side}²" for side in sides])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("slide, pixels")
    axis.set_ylabel("peak memory of the largest process, MB")
    axis.set_title("Memory does not grow with the image", loc="left")


def _first(rows: list[dict], kind: str) -> list[dict]:
    found = {row["key"]: row for row in reversed(rows) if row["kind"] == kind}
    return [*found.values()]


def _page(results: Path, part: str) -> dict | None:
    path = results / f"{part}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    print(json.dumps({"plot": str(draw(Path(sys.argv[1])))}))
