"""A night's page, table and facts: what people read in the morning."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from urllib.parse import quote

from flows.nightly.night import BAD, NightSummary
from flows.reporting.escaping import plain
from flows.reporting.progress import format_seconds
from tiling.archives.archive import Archive
from tiling.archives.slide_ledger import SlideRecord, SlideState
from tiling.escaping import cell
from tiling.storage.place import write_atomic

COLUMNS = (
    "slide",
    "state",
    "reason",
    "run",
    "megapixels",
    "seconds",
    "tiles",
    "failed_tiles",
    "mask_bytes",
    "pixel_size_y",
    "pixel_size_x",
    "pixel_size_unit",
)
PICTURES = 200
"""Beyond these a page names slides without showing them."""

_ORDER = {state: number for number, state in enumerate((*BAD, *(s for s in SlideState if s not in BAD)))}


def publish(archive: Archive, night: NightSummary) -> None:
    """Write the night's page, table and facts, and the archive's table as it stands now."""
    folder = archive.nights
    looked_at = sorted((*night.records, *night.known_failures), key=lambda each: each.slide)
    write_atomic(folder / f"{night.name}.csv", table(looked_at).encode(), below=archive.path)
    write_atomic(folder / f"{night.name}.json", facts(night).encode(), below=archive.path)
    page = "".join(page_of(night)).encode()
    write_atomic(folder / f"{night.name}.html", page, below=archive.path)
    write_atomic(folder / "latest.html", page, below=archive.path)
    write_atomic(archive.path / "slides.csv", table(sorted(archive.ledger, key=lambda each: each.slide)).encode())


def table(records: Iterator[SlideRecord] | tuple[SlideRecord, ...] | list[SlideRecord]) -> str:
    """One line per slide, as CSV that a spreadsheet obeys in nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        megapixels = round(record.pixels / 1e6, 3)
        row = (record.slide, record.state.value, record.reason or "", record.folder, megapixels, record.seconds)
        row = (*row, record.tiles, record.failed_tiles, record.mask_bytes, *(record.pixel_size or ("", "", "")))
        writer.writerow([cell(value) for value in row])
    return text.getvalue()


def facts(night: NightSummary) -> str:
    """All that is known of the night, for programs."""
    message = {
        **asdict(night),
        "archive": str(night.archive),
        "megapixels_per_second": night.megapixels_per_second,
        "complete": night.complete,
        "rerun": night.rerun_command if night.failed else None,
    }
    return json.dumps(message, indent=1, default=str) + "\n"


def page_of(night: NightSummary) -> Iterator[str]:
    """The page, self-contained but for the pictures, which lie in the runs beside it."""
    date, _, clock = night.name.partition("_")
    title = f"{plain(night.archive.name)}, night of {date}, {clock[:2]}:{clock[2:4]}"
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style><h1>{_text(title)}</h1>"
    verdict = "ok" if night.complete else "bad"
    message = (
        "All slides that could be segmented are." if night.complete else f"{len(night.failed)} slides stand failed."
    )
    yield f'<p class="verdict {verdict}">{message}</p><p>{_text(str(night))}.</p>'
    if night.failed:
        yield f"<p>Try the failed ones again with <code>{_text(night.rerun_command)}</code></p>"
    yield from _figures(night)
    yield from _slides("Failed", night.failed, pictures=False)
    others = sorted((r for r in night.records if r.state not in BAD), key=lambda r: (_ORDER[r.state], r.slide))
    yield from _slides("Slides of this night", others, pictures=len(others) <= PICTURES)
    yield "</html>\n"


def _figures(night: NightSummary) -> Iterator[str]:
    shown = (
        ("done", str(len(night.of(SlideState.DONE)))),
        ("failed", str(len(night.failed))),
        ("unchanged", str(night.unchanged)),
        ("waiting", str(night.waiting)),
        ("megapixels", f"{night.pixels / 1e6:,.0f}"),
        ("MPix/s", f"{night.megapixels_per_second:.2f}"),
        ("in all", format_seconds(night.seconds)),
        ("workers busy", f"{night.busy_share:.1%}" if night.inference_seconds else "-"),
        ("left", format_seconds(night.left_seconds)),
    )
    yield "<dl>"
    for name, value in shown:
        yield f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>"
    yield "</dl>"


def _slides(title: str, records: list[SlideRecord], *, pictures: bool) -> Iterator[str]:
    if not records:
        return
    yield f"<h2>{title}</h2><table><thead><tr>"
    headings = ("", "slide", "state", "megapixels", "pixel size", "seconds", "tiles", "reason")
    yield "".join(f"<th>{name}</th>" for name in (headings if pictures else headings[1:]))
    yield "</tr></thead><tbody>"
    for record in records:
        yield "<tr>" + (f"<td>{_picture(record)}</td>" if pictures else "")
        tiles = f"{record.tiles - record.failed_tiles} of {record.tiles}" if record.failed_tiles else f"{record.tiles}"
        yield f'<td class="slide">{_link(record)}</td><td class="{record.state.value}">{record.state.value}</td>'
        yield f'<td class="n">{record.pixels / 1e6:,.1f}</td><td class="n">{_text(_pixel_size(record))}</td>'
        yield f'<td class="n">{record.seconds:,.1f}</td>'
        reason = f"same content as {record.reason}" if record.state is SlideState.SAME else record.reason or ""
        yield f'<td class="n">{tiles}</td><td class="reason">{_text(reason)}</td></tr>'
    yield "</tbody></table>"


def _pixel_size(record: SlideRecord) -> str:
    """What was segmented at, which makes one slide's figures comparable with another's."""
    if record.pixel_size is None:
        return "not known" if record.tiles else ""
    y, x, unit = record.pixel_size
    unit = "µm" if unit == "um" else unit
    return f"{x:.4g} {unit}" if f"{x:.4g}" == f"{y:.4g}" else f"{x:.4g} × {y:.4g} {unit}"


def _picture(record: SlideRecord) -> str:
    if record.state not in {SlideState.DONE, SlideState.SAME}:
        return ""
    return f'<img loading="lazy" alt="" src="{_address(record)}/overlay.png">'


def _link(record: SlideRecord) -> str:
    """The slide's name, leading to its run's report where one was written."""
    name = _text(record.slide)
    closed = record.state in {SlideState.DONE, SlideState.SAME} or record.failed_tiles
    return f'<a href="{_address(record)}/report.html">{name}</a>' if closed else name


def _address(record: SlideRecord) -> str:
    return html.escape(f"../{quote(record.folder)}")


def _text(text: str) -> str:
    return html.escape(plain(text))


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #888; --bad: #c22; --good: #182; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
code { background: #8882; padding: .15em .4em; border-radius: 3px; overflow-wrap: anywhere; }
.verdict { font-weight: 600; } .verdict.bad { color: var(--bad); } .verdict.ok { color: var(--good); }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1.2rem 0; }
dt { color: var(--quiet); font-size: .8rem; } dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--quiet); font-weight: 500; font-size: .8rem; } td { overflow-wrap: anywhere; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.done, td.failed, td.refused, td.same, td.begun, td.changing, td.gone { white-space: nowrap; }
td.failed, td.refused { color: var(--bad); font-weight: 600; } td.done { color: var(--good); }
img { width: 120px; max-height: 90px; object-fit: contain; display: block; }
td.slide { min-width: 11rem; }
@media (max-width: 760px) {
  thead, .n { display: none; }
  tr { display: flex; flex-wrap: wrap; gap: .2rem .8rem; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  td { border: 0; padding: 0; }
  td.slide { flex: 1 1 12rem; } td.reason { flex: 1 1 100%; } td.reason:empty { display: none; }
}
"""
