"""The published tables, from the raw figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import scene_rates

Row = dict[str, Any]
PRECISIONS = ("float32", "bfloat16")


def write(results: Path) -> str:
    """All that the folder's raw figures say, as one page of Markdown."""
    sections = {
        "contest": _contest,
        "large": _large,
        "growth": _growth,
        "driver": _driver,
        "startup": _startup,
        "archive": _archive,
        "steps": _around,
        "exports": _exports,
        "polygons": _polygons,
        "scenes": _scenes,
        "imported": _imported,
    }
    pages = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    parts = [section(pages[name]) for name, section in sections.items() if name in pages]
    return "# Benchmarks\n\nWritten by `make benchmark`; don't edit.\n\n" + "\n".join(parts)


def medians(rows: Iterable[Row], value: Callable[[Row], float]) -> dict[str, float]:
    """The median of a value over the rounds, by key; rows with errors don't count."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if "error" not in row:
            found.setdefault(row["key"], []).append(value(row))
    return {key: median(values) for key, values in found.items()}


def limits(rows: Iterable[Row]) -> dict[str, tuple[str, float]]:
    """By precision: the arrangement with the highest median rate, and that rate in pixels per second."""
    bare = [row for row in rows if row["kind"] == "limit"]
    rates = medians(bare, _rate)
    precision_of = {row["key"]: row["precision"] for row in bare if "precision" in row}
    best: dict[str, tuple[str, float]] = {}
    for key, rate in rates.items():
        precision = precision_of[key]
        if rate > best.get(precision, ("", 0.0))[1]:
            best[precision] = (key, rate)
    return best


def _rate(row: Row) -> float:
    return float(row["pixels_per_second"])


def _contest(page: Row) -> str:
    rows: list[Row] = page["rows"]
    rates, best = medians(rows, _rate), limits(rows)
    about = (
        f"Slide: {page['tissue']} mirrored out, JPEG tiles of 256 px. Network: the shipped `nuclei-small` bundle (16 "
        f"first channels). Two cores for everybody. Medians of {1 + max(row['round'] for row in rows)} interleaved "
        "rounds. "
        "Peers run in eager float32, with the batch and the threads that were fastest here (one tile at a time; dask: "
        "one task per core). Start-up (importing, loading weights, Ray, Prefect) is excluded for all: overtile's pool "
        "has labelled the slide once before, as in an archive; a second pass in one process made the peers no more "
        "than 2 % faster. *Differing* counts labels against one float32 pass of the plain network over the whole slide."
    )
    shown = _shares(f"One slide of {page['side_px']}² px, from opening the file to labels on disk", about, page)
    return "\n".join([*shown, "", *_ratios(rows, rates), *_steps(rows, rates, best)]) + "\n"


def _shares(title: str, about: str, page: Row) -> list[str]:
    """A section's lines: the limits, then overtile's arrangements and the peers as shares of them."""
    rows: list[Row] = page["rows"]
    rates, best = medians(rows, _rate), limits(rows)
    shown = [
        f"## {title}",
        _machine(page),
        about,
        "",
        "| | MPix/s | share of the limit | differing labels | memory of the tree | largest process |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    shown += [f"| limit, {p}: {key} | {rate / 1e6:.2f} | 100 % | | | |" for p, (key, rate) in sorted(best.items())]
    for kind in ("overtile", "peer"):
        for key in dict.fromkeys(row["key"] for row in rows if row["kind"] == kind):
            shown.append(_line(key, [row for row in rows if row["key"] == key], rates, best))
    return shown


def _line(key: str, rows: list[Row], rates: dict[str, float], best: dict[str, tuple[str, float]]) -> str:
    first = rows[0]
    label = first.get("label", key) + (f" ({first['note']})" if first.get("note") else "")
    if key not in rates:
        return f"| {label} | failed: {first['error'].splitlines()[-1][:80]} | | | | |"
    limit = best.get(first.get("precision", "float32"))
    share = f"{100 * rates[key] / limit[1]:.0f} %" if limit else ""
    good = [row for row in rows if "error" not in row]
    tree = max(row["memory"]["tree_pss"] for row in good) / 1e9
    largest = max(row["memory"]["largest"] for row in good) / 1e9
    return f"| {label} | {rates[key] / 1e6:.2f} | {share} | {_differing(good)} | {tree:.2f} GB | {largest:.2f} GB |"


def _differing(rows: list[Row]) -> str:
    if not all("differing" in row for row in rows):
        return ""
    count = max(row["differing"] for row in rows)
    return "0" if count == 0 else f"{count / rows[0]['pixels']:.1e} ({count})"


def _large(page: Row) -> str:
    rows: list[Row] = page["rows"]
    side_px = round(max(row["pixels"] for row in rows if "pixels" in row) ** 0.5)
    about = (
        "The same, on a slide that no whole pass fits, so that labels are not compared; the pool has labelled a "
        f"smaller slide before. Medians of {1 + max(row['round'] for row in rows)} rounds."
    )
    shown = _shares(f"A larger slide, {side_px}² px", about, page)
    return "\n".join([*shown, ""]) + "\n"


def fastest(rows: list[Row], rates: dict[str, float], precision: str) -> tuple[str, float] | None:
    """overtile's best key and rate in one precision."""
    keys = {row["key"] for row in rows if row["kind"] == "overtile" and row.get("precision") == precision}
    found = [(rates[key], key) for key in keys if key in rates]
    return (max(found)[1], max(found)[0]) if found else None


def _ratios(rows: list[Row], rates: dict[str, float]) -> list[str]:
    peers = {row["key"]: row["label"] for row in rows if row["kind"] == "peer" and row["key"] in rates}
    ours = [(precision, fastest(rows, rates, precision)) for precision in PRECISIONS]
    held = [(precision, found) for precision, found in ours if found]
    if not peers or not held:
        return []
    head = "| times as fast as | " + " | ".join(f"{key}" for _, (key, _) in held) + " |"
    body = [
        f"| {label} | " + " | ".join(f"{rate / rates[key]:.1f}" for _, (_, rate) in held) + " |"
        for key, label in peers.items()
    ]
    return [head, "|---|" + "---:|" * len(held), *body, ""]


def _steps(rows: list[Row], rates: dict[str, float], best: dict[str, tuple[str, float]]) -> list[str]:
    """Where the rest of the limit goes: each line adds one thing that a bare forward pass doesn't do."""
    if not any(row["kind"] == "step" for row in rows):
        return []
    shown = ["Where the limit goes (MPix/s, and the share of the limit):", ""]
    shown += ["| | limit | minimal computation, in memory | direct | staged | actors computing |"]
    shown += ["|---|---:|---:|---:|---:|---:|"]
    for precision in PRECISIONS:
        for core_px in sorted({row["core_px"] for row in rows if "core_px" in row}):
            keys = [f"minimal {precision} 2x1 {core_px}"]
            keys += [f"overtile {precision} {core_px} {way}" for way in ("direct", "staged")]
            if precision not in best or not all(key in rates for key in keys):
                continue
            limit = best[precision][1]
            cells = [f"{limit / 1e6:.2f}"] + [f"{rates[k] / 1e6:.2f} ({100 * rates[k] / limit:.0f} %)" for k in keys]
            busy = medians((row for row in rows if row["key"] == keys[-1]), _busy)[keys[-1]]
            shown.append(f"| {precision}, core {core_px} | " + " | ".join(cells) + f" | {100 * busy:.0f} % |")
    return [*shown, ""]


def _busy(row: Row) -> float:
    """The part of the measured time in which the actors computed."""
    return float(row["stage_seconds"]["compute"] / (row["workers"] * row["seconds"]))


def _growth(page: Row) -> str:
    rows: list[Row] = [{**row, "key": str(row["side_px"])} for row in page["rows"]]
    seconds = medians(rows, lambda row: row["seconds"] / row["pixels"] * 1e6)
    kinds = sorted({kind for row in rows for kind in row["memory"]["by_kind"]})
    kinds = [kind for kind in ("driver", "tile actor", "stager") if kind in kinds]
    shown = ["## Growth", _machine(page), "bfloat16, core 512, staged; peaks of the largest process of each kind.", ""]
    shown += ["| slide | tiles | seconds per MPix | " + " | ".join(kinds) + " | whole tree |"]
    shown += ["|---|---:|---:|" + "---:|" * (len(kinds) + 1)]
    for key, value in seconds.items():
        held = [row for row in rows if row["key"] == key]
        peaks = [max(row["memory"]["by_kind"].get(kind, 0) for row in held) for kind in kinds]
        peaks.append(max(row["memory"]["tree_pss"] for row in held))
        cells = " | ".join(f"{peak / 1e6:.0f} MB" for peak in peaks)
        shown.append(f"| {key}² | {held[0]['tiles']} | {value:.3f} | {cells} |")
    return "\n".join([*shown, ""])


def _driver(page: Row) -> str:
    rows: list[Row] = [{**row, "key": f"{row['actors']} | {row['tiles']:,}"} for row in page["rows"]]
    wall = medians(rows, lambda row: row["milliseconds_per_tile"])
    cpu = medians(rows, lambda row: row["driver_cpu_milliseconds_per_tile"])
    shown = ["## The driver's cost", _machine(page)]
    shown += [
        "Actors that do nothing, the real pool, backlog, ledger and Prefect tasks, all on the same cores.",
        "",
        "| actors | tiles | ms per tile | of the driver's processor | tiles per second | driver's peak memory |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for key, value in wall.items():
        held = [row for row in rows if row["key"] == key]
        peak = max(row["memory"]["by_kind"].get("driver", 0) for row in held)
        cells = f"{value:.2f} | {cpu[key]:.2f} | {1e3 / value:.0f} | {peak / 1e6:.0f} MB"
        shown.append(f"| {key} | {cells} |")
    return "\n".join([*shown, ""])


def _exports(page: Row) -> str:
    shown = ["## Exports", _machine(page), _ABOUT_EXPORTS]
    for subject in dict.fromkeys(row["subject"] for row in page["rows"]):
        shown += _exported([row for row in page["rows"] if row["subject"] == subject])
    return "\n".join([*shown, ""])


def _polygons(page: Row) -> str:
    count = max(row["objects"] for row in page["rows"] if row["kind"] == "check" for row in row["formats"].values())
    return "\n".join([f"## {count:,} polygons", _machine(page), *_exported(page["rows"]), ""])


_ABOUT_EXPORTS = (
    "Each format by itself, then all at once, in a process of its own; the peak memory is that of the process and "
    "includes the libraries. *Back*: how many objects a file holds, and how many pixels they give otherwise than the "
    "mask has them when GDAL rasterises them again."
)
_SUBJECTS = {
    "tissue": "Tissue mirrored out as a GeoTIFF, segmented with the `nuclei-small` bundle",
    "slide": "CMU-1-Small-Region.svs, segmented with the `nuclei-small` bundle",
    "drawn": "A drawn mask of two classes, with regions that reach across all of it and hold nuclei",
    "discs": "A drawn mask of discs",
}


def _exported(rows: list[Row]) -> list[str]:
    """What was measured on one subject."""
    written: list[Row] = [{**row, "key": " ".join(row["formats"])} for row in rows if row["kind"] == "export"]
    back = {name: found for row in rows if row["kind"] == "check" for name, found in row["formats"].items()}
    inference = next((row["seconds"] for row in rows if row["kind"] == "inference"), None)
    pixels, seconds = written[0]["pixels"], medians(written, lambda row: row["seconds"])
    about = f"{_SUBJECTS[rows[0]['subject']]}: {pixels / 1e6:.0f} MPix"
    if inference is not None:
        about += f"; from opening the image to the last label {inference:.1f} s (bfloat16, core 512)"
    shown = [
        "",
        f"{about}.",
        "",
        "| format | seconds | MPix/s | peak memory | file | back |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for key, value in seconds.items():
        held = [row for row in written if row["key"] == key]
        peak, size = max(row["memory"]["largest"] for row in held), held[0]["bytes"]
        name = key if len(held[0]["formats"]) == 1 else "all of them: " + key.replace(" ", ", ")
        found = [f"{each}: " * (each != key) + _back(back[each]) for each in held[0]["formats"] if each in back]
        cells = f"{value:.1f} | {pixels / 1e6 / value:.0f} | {peak / 1e6:.0f} MB | {size / 1e6:.1f} MB"
        shown.append(f"| {name} | {cells} | {'' if len(found) > 1 and len(seconds) > 1 else '; '.join(found)} |")
    return shown


def _back(found: dict[str, int]) -> str:
    differing = f", {found['differing']} pixels differ" if "differing" in found else ""
    return f"{found['objects']} objects{differing}"


def _startup(page: Row) -> str:
    shown = ["## Start-up included", _machine(page), "CMU-1-Small-Region.svs (2967 x 2220), default options.", ""]
    shown += ["| precision | first finished tile | overlay | end of the command |", "|---|---:|---:|---:|"]
    for precision in dict.fromkeys(row["precision"] for row in page["rows"]):
        held = [row["seconds"] for row in page["rows"] if row["precision"] == precision]
        cells = [f"{median(each[name] for each in held):.1f} s" for name in ("first_tile", "overlay", "end")]
        shown.append(f"| {precision} | " + " | ".join(cells) + " |")
    return "\n".join([*shown, ""])


def _archive(page: Row) -> str:
    rows: list[Row] = page["rows"]
    first = rows[0]
    busy, computing = (median(row[name] for row in rows) for name in ("busy_share", "computing_share"))
    rate = median(_rate(row) for row in rows) / 1e6
    return (
        f"## An archive\n{_machine(page)}\n{first['slides']} slides of {first['tiles']} tiles in all, "
        f"{first['precision']}, core {first['core_px']}, {first['workers']} actors, one corrupt slide among them: "
        f"actors have a tile for **{busy:.1%}** of the time between the first tile and the last, and compute for "
        f"{computing:.1%}; {rate:.2f} MPix/s. Median of {len(rows)}.\n"
    )


def _scenes(page: Row) -> str:
    rows = page["rows"]
    rounds = 1 + max(row["round"] for row in rows)
    about = "Boxes of 1024 px, one after another, in one process; million values for each second of a processor."
    shown = ["## Reading scenes", _machine(page), f"{about} Median of {rounds}.", ""]
    shown += [f"| {rows[0]['side_px']}² px | overtile | rasterio windows | part | overtile's peak | rasterio's peak |"]
    shown += ["|---|---:|---:|---:|---:|---:|"]
    for scene, readers in scene_rates.medians(page).items():
        (ours, held), (theirs, other) = readers["overtile"], readers["rasterio"]
        shown.append(f"| {scene} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} | {held:.0f} MB | {other:.0f} MB |")
    return "\n".join([*shown, ""])


def _imported(page: Row) -> str:
    """Networks in the formats of others, each beside one pass of the network that it came from."""
    rows: list[Row] = page["rows"]
    first = rows[0]
    shown = ["## Networks in the formats of others", _machine(page), _ABOUT_IMPORTED.format(**first), ""]
    shown += ["| network | format | labels | differ | widest gap | in float64 | other layout | rounding | usual gap |"]
    shown += ["|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for row in rows:
        own = f"{row['source_from_float64']} | {row['source_in_other_layout']} | {row['rounding']:.0e}"
        gap = f"{row['widest_gap']:.0e}" if row["differing"] else ""
        labels = f"{row['pixels'] / 1e6:.1f} million | {row['differing']} | {gap}"
        shown.append(f"| {row['network']} | {row['format']} | {labels} | {own} | {row['median_gap']:.1f} |")
    return "\n".join([*shown, ""])


_ABOUT_IMPORTED = (
    "Each network learns nuclei for {steps} steps, and is segmented by overtile in tiles (core 384, float32) on a "
    "megapixel of {tissue}. *Differ*: labels that aren't those of one float32 pass of the network as it is, over the "
    "whole image; *widest gap*: how far the best two logits lie apart at most where one differs. Of that pass itself: "
    "how many of its labels differ *in float64* and in another *layout* of memory, how far its logits are *rounded* at "
    "most, and the median gap."
)


def _around(page: Row) -> str:
    """Each step around the network beside what the libraries under it take for the same bytes."""
    rows: list[Row] = [{**row, "key": (row["levels"], row["pixels"], row.get("staged", True))} for row in page["rows"]]
    shown = ["## The steps around the network", _machine(page), _ABOUT_STEPS]
    for key in dict.fromkeys(row["key"] for row in rows):
        held = [row for row in rows if row["key"] == key]
        first, levels = held[0], "one level" if held[0]["levels"] == 1 else f"{held[0]['levels']} levels"
        costs = {step: median(row[_CPU][step] for row in held) for step in first[_CPU]}
        way = "" if first.get("staged", True) else ", without staging"
        shown += ["", f"{round(first['pixels'] ** 0.5)}² px, {levels}, core {first['core_px']}{way}:", ""]
        shown += ["| step | overtile | libraries | times | of these |", "|---|---:|---:|---:|---|"]
        raw = {step: _raw_parts(held, step) for step in costs}
        shown += [_step(step, cost, raw[step]) for step, cost in costs.items()]
        together = sum(sum(parts.values()) for parts in raw.values())
        shown.append(_step("together", sum(costs.values()), {"": together} if together else {}))
        if "where" in first:
            mine = [step for step in costs if first["where"][step] == "driver"]
            seconds = median(row["driver_cpu_seconds"] for row in held) / first["pixels"] * 1e9
            shown.append(f"| of it the driver's | {seconds:.1f} | | | {', '.join(mine)} |")
    return "\n".join([*shown, *_driver_per_slide(rows), ""])


def _driver_per_slide(rows: list[Row]) -> list[str]:
    """What the driver takes for each slide and for each gigapixel, by the smallest and the largest of a kind."""
    shown = list[str]()
    for levels, staged in dict.fromkeys((row["levels"], row.get("staged", True)) for row in rows):
        seconds: dict[int, list[float]] = {}
        for row in rows:
            if (row["levels"], row.get("staged", True)) == (levels, staged) and "driver_cpu_seconds" in row:
                seconds.setdefault(row["pixels"], []).append(row["driver_cpu_seconds"])
        if len(seconds) > 1:
            few, many = min(seconds), max(seconds)
            least, most = (median(seconds[pixels]) for pixels in (few, many))
            each = (most - least) / (many - few)
            way = "" if staged else ", without staging"
            costs = f"{least - each * few:.2f} s for each slide and {each * 1e9:.1f} for each gigapixel"
            shown += ["", f"The driver, by these sides of {levels} levels{way}: {costs}."]
    return shown


_CPU = "cpu_seconds_per_gigapixel"
_ABOUT_STEPS = (
    "One after another, in processor seconds per gigapixel of all threads. *Libraries*: what decodes, copies, "
    "compresses, hashes and writes the same bytes in the same chunks, in one thread of the same run, with nothing "
    "planned, checked or recorded (`benchmarks/raw.py`)."
)


def _raw_parts(rows: list[Row], step: str) -> dict[str, float]:
    """What the libraries under a step take, by part; none for a step that has no such part."""
    found: list[dict[str, float]] = [row.get(f"raw_{_CPU}", {}).get(step, {}) for row in rows]
    return {part: median(parts[part] for parts in found) for part in found[0]}


def _step(step: str, cost: float, parts: dict[str, float]) -> str:
    raw = sum(parts.values())
    listed = ", ".join(f"{part} {seconds:.2f}" for part, seconds in parts.items() if part)
    return f"| {step} | {cost:.1f} | " + (f"{raw:.1f} | {cost / raw:.1f} | {listed} |" if raw else "| | |")


def _machine(page: Row) -> str:
    facts = page["machine"]
    versions = {**facts["versions"], **page["peers"]}
    listed = ", ".join(f"{name} {version.splitlines()[0][:60]}" for name, version in versions.items())
    return (
        f"\n{facts['date']}, {facts['processor']}, {facts['cores']} cores, {facts['memory_bytes'] / 2**30:.0f} GiB, "
        f"bfloat16 {'native' if facts['bfloat16'] else 'emulated'}, {facts['system']}, Python {facts['python']}, "
        f"commit {facts['commit']}, load before {page['load_before']:.1f}. {listed}.\n"
    )
