"""Index of an archive's nights, as a table and as a page, and the bound on how many of them are kept."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterator

from flows.nightly.night import NightSummary
from flows.nightly.verdict import Verdict
from flows.reporting.escaping import plain
from tiling.archives.archive import Archive
from tiling.archives.history import NightHistory, PastNight, shown_time
from tiling.escaping import cell
from tiling.storage.place import remove_within, write_atomic

NIGHTS_KEPT = 400
"""Of which the pages, tables and facts are kept; the ledger and the index know every night."""
SUFFIXES = (".html", ".csv", ".json")
COLUMNS = ("night", "began", "ended", "verdict", "done", "failed", "known to fail", "to look at", "left", "told")


def write_index(archive: Archive, night: NightSummary) -> None:
    """Write `nights.csv` and the page of all nights with tonight, and remove pages that are older than the bound."""
    history = NightHistory.of(archive.ledger.events)
    nights = [each for each in history.nights if each.name != night.name]
    tonight = next((each for each in history.nights if each.name == night.name), None)
    rows = [*map(_row, nights), _row_of(night, tonight)]
    write_atomic(archive.path / "nights.csv", _csv(rows).encode())
    page = "".join(_page(archive, rows)).encode()
    write_atomic(archive.nights / "index.html", page, below=archive.path)
    for old in nights[: max(0, len(nights) + 1 - NIGHTS_KEPT)]:
        for suffix in SUFFIXES if old.name else ():
            remove_within(archive.nights / f"{old.name}{suffix}", archive.path)


Row = dict[str, str]


def _row(night: PastNight) -> Row:
    facts = night.facts or {}
    counts = facts.get("counts", {})
    verdict = str(facts.get("verdict", "ended")) if night.ended is not None else "died"
    return {
        "night": night.name,
        "began": shown_time(night.began),
        "ended": shown_time(night.ended) if night.ended is not None else "",
        "verdict": verdict,
        **{name: str(counts.get(name, "")) for name in ("done", "failed", "known to fail", "to look at")},
        "left": str(facts.get("left", "")),
        "told": night.summary if night.ended is not None else night.death,
    }


def _row_of(night: NightSummary, begun: PastNight | None) -> Row:
    return {
        "night": night.name,
        "began": shown_time(begun.began) if begun is not None else night.title,
        "ended": shown_time(begun.began + night.seconds) if begun is not None else "",
        "verdict": night.verdict.value,
        **{name: str(night.counts[name]) for name in ("done", "failed", "known to fail", "to look at")},
        "left": str(night.left) if night.left.slides else "",
        "told": str(night),
    }


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([cell(row[name]) for name in COLUMNS] for row in rows)
    return text.getvalue()


def _page(archive: Archive, rows: list[Row]) -> Iterator[str]:
    title = html.escape(f"{plain(archive.path.name)}: nights")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style><h1>{title}</h1><table><thead><tr>"
    shown = [name for name in COLUMNS if name not in {"night", "told"}]
    yield "".join(f"<th>{name}</th>" for name in shown) + "</tr></thead><tbody>"
    for number, row in enumerate(reversed(rows)):
        cells = {name: html.escape(plain(row[name])) for name in shown}
        if row["night"] and row["verdict"] != "died" and number < NIGHTS_KEPT:
            cells["began"] = f'<a href="{html.escape(row["night"])}.html">{cells["began"]}</a>'
        kind = "bad" if row["verdict"] in {"died", Verdict.FAILED, Verdict.FAILED_AGAIN} else ""
        yield f'<tr class="{kind}">' + "".join(f"<td>{cells[name]}</td>" for name in shown) + "</tr>"
    yield "</tbody></table></html>\n"


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #8884; vertical-align: top; }
th { color: #888; font-weight: 500; font-size: .8rem; } tr.bad td:nth-child(3) { color: #c22; font-weight: 600; }
"""
