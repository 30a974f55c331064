"""A night's page, table and facts: what people read in the morning."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from flows.nightly.index import write_index
from flows.nightly.night import NightSummary
from flows.nightly.verdict import Verdict
from flows.reporting.escaping import plain
from flows.reporting.progress import format_seconds
from tiling.archives.archive import Archive
from tiling.archives.flags import flags_by_slide
from tiling.archives.slide_record import BAD, SlideRecord, SlideState
from tiling.archives.table import SlideTable
from tiling.escaping import some, word
from tiling.export.mosaic import mosaics
from tiling.storage.place import pasted, remove_within, write_atomic

PICTURES = 200
"""Beyond these a page names slides without showing them."""
MASK = "mask.tif"
MOST_MOSAICS = 16
"""Grids of one archive whose masks are drawn together; an archive of more is no mosaic."""
ACKNOWLEDGED_SHOWN = MISSING_SHOWN = 50

_ORDER = {state: number for number, state in enumerate((*BAD, *(s for s in SlideState if s not in BAD)))}


def publish(archive: Archive, night: NightSummary) -> None:
    """Write the night's page, table and facts, the archive's tables as they stand now, and the index of nights."""
    folder, model = archive.nights, archive.card.model
    looked_at = {record.slide: record for record in (*night.known_failures, *night.records)}
    table = SlideTable(looked_at.values(), model, night.flags)
    write_atomic(folder / f"{night.name}.csv", table.csv(), below=archive.path)
    write_atomic(folder / f"{night.name}.json", facts(night).encode(), below=archive.path)
    page = "".join(page_of(night)).encode()
    write_atomic(folder / f"{night.name}.html", page, below=archive.path)
    write_atomic(folder / "latest.html", page, below=archive.path)
    every = SlideTable(archive.ledger, model, flags_by_slide(archive.ledger))
    write_atomic(archive.path / "slides.csv", every.csv())
    write_atomic(archive.path / "slides.parquet", every.parquet())
    write_mosaics(archive)
    write_index(archive, night)


def write_mosaics(archive: Archive) -> None:
    """Write `masks.vrt`, the COGs of all slides as one raster, and `masks-2.vrt`… of those on other grids."""
    folder = archive.path
    if not isinstance(folder, Path):
        return
    done = sorted((each for each in archive.ledger if each.state is SlideState.DONE), key=lambda each: each.slide)
    masks = [mask for each in done if (mask := folder / each.folder / "exports" / MASK).is_file()]
    names = [f"masks{f'-{number}' if number > 1 else ''}.vrt" for number in range(1, MOST_MOSAICS + 1)]
    found = mosaics(folder, masks)[:MOST_MOSAICS] if masks else []
    for name, vrt in zip(names, found, strict=False):
        write_atomic(folder / name, vrt)
    for name in names[len(found) :]:
        remove_within(folder / name, folder)


def facts(night: NightSummary) -> str:
    """All that is known of the night, for programs."""
    message = {
        **asdict(night),
        "archive": str(night.archive),
        "megapixels_per_second": night.megapixels_per_second,
        "complete": night.complete,
        "verdict": night.verdict.value,
        "new_failures": [record.slide for record in night.new_failures],
        "standing": [record.slide for record in night.standing],
        "acknowledged": [record.slide for record in night.acknowledged],
        "rerun": night.rerun_command if night.failed else None,
        "advice": night.advice,
    }
    return json.dumps(message, indent=1, default=_as_json) + "\n"


def _as_json(value: object) -> object:
    return sorted(map(str, value)) if isinstance(value, frozenset | set) else str(value)


def page_of(night: NightSummary) -> Iterator[str]:
    """The page, self-contained but for the pictures, which lie in the runs beside it."""
    title = f"{plain(night.archive.name)}, night of {night.title}"
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style><h1>{_text(title)}</h1>"
    yield f'<p class="verdict {_VERDICT_CLASS[night.verdict]}">{_text(_message(night))}</p>'
    yield from (f'<p class="verdict warn">{_text(warning)}</p>' for warning in night.warnings)
    yield f"<p>{_text(str(night))}.</p>"
    yield from (f"<p>{_with_command(advice)}</p>" for advice in night.advice)
    yield from _missing(night.missing)
    yield from _figures(night)
    yield from _slides("Failed again" if night.is_rerun else "New failures", night.new_failures, night, pictures=True)
    yield from _slides("Known failures", night.standing, night, pictures=True)
    yield from _acknowledged(night.acknowledged)
    by_name = {record.slide: record for record in night.records}
    flagged = [by_name[slide] for slide in night.flags if slide in by_name]
    yield from _slides("To look at", flagged, night, pictures=len(flagged) <= PICTURES)
    others = sorted((r for r in night.records if r.state not in BAD), key=lambda r: (_ORDER[r.state], r.slide))
    yield from _slides("Slides of this night", others, night, pictures=len(others) <= PICTURES)
    yield f'<p class="quiet"><a href="index.html">All nights</a></p><script>{_SCRIPT}</script></html>\n'


def _message(night: NightSummary) -> str:
    if night.verdict.is_failure:
        count = len(night.new_failures)
        return f"{count} slide{'' if count == 1 else 's'} failed {'again' if night.is_rerun else 'for the first time'}."
    if night.verdict is Verdict.BACKLOG:
        return f"Nothing new failed. {night.left}."
    look = f" {len(night.flags)} of this night are to be looked at." if night.flags else ""
    return f"All slides that could be segmented are.{look}"


_VERDICT_CLASS = {
    Verdict.FAILED: "bad",
    Verdict.FAILED_AGAIN: "bad",
    Verdict.BACKLOG: "warn",
    Verdict.LOOK: "warn",
    Verdict.COMPLETE: "ok",
}


def _with_command(advice: str) -> str:
    """A sentence whose command, after a colon, can be copied by itself."""
    said, found, command = advice.partition(": overtile ")
    return f"{_text(said)}: <code>{_text(f'overtile {command}')}</code>" if found else _text(advice)


def _acknowledged(records: Sequence[SlideRecord]) -> Iterator[str]:
    if records:
        names = some([record.slide for record in records], ACKNOWLEDGED_SHOWN)
        yield f"<details><summary>{len(records)} acknowledged</summary><p>{_text(names)}</p></details>"


def _missing(names: Sequence[str]) -> Iterator[str]:
    """Slides that are done, and whose images somebody has taken away since the last night."""
    if names:
        masks = "its mask stays" if len(names) == 1 else "their masks stay"
        sentence = f"{len(names)} done before and no longer in the source; {masks}: {some(names, MISSING_SHOWN)}."
        yield f"<p>{_text(sentence)}</p>"


def _figures(night: NightSummary) -> Iterator[str]:
    shown = (
        ("done", str(len(night.of(SlideState.DONE)))),
        ("failed again" if night.is_rerun else "new failures", str(len(night.new_failures))),
        ("known failures", str(len(night.standing))),
        ("to look at", str(len(night.flags))),
        ("unchanged", str(night.unchanged)),
        ("slides left", str(night.left.slides or night.waiting)),
        ("megapixels", f"{night.pixels / 1e6:,.0f}"),
        ("MPix/s", f"{night.megapixels_per_second:.2f}"),
        ("in all", format_seconds(night.seconds)),
        ("workers busy", f"{night.busy_share:.1%}" if night.inference_seconds else "-"),
        ("time left", format_seconds(night.left_seconds)),
    )
    yield "<dl>"
    for name, value in shown:
        yield f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>"
    yield "</dl>"


def _slides(title: str, records: Sequence[SlideRecord], night: NightSummary, *, pictures: bool) -> Iterator[str]:
    if not records:
        return
    yield f"<h2>{title}</h2><table><thead><tr>"
    headings = ("", "slide", "state", "megapixels", "pixel size", "seconds", "tiles", "objects", "to look at", "reason")
    yield "".join(f"<th>{name}</th>" for name in (headings if pictures else headings[1:]))
    yield "</tr></thead><tbody>"
    for record in records:
        yield "<tr>" + (f"<td>{_picture(record, night)}</td>" if pictures else "")
        yield from _cells(record, night.flags)
        yield f'<td class="reason">{_text(_reason(record))}{_leave(record, night)}</td></tr>'
    yield "</tbody></table>"


def _cells(record: SlideRecord, flags: Mapping[str, Sequence[str]]) -> Iterator[str]:
    tiles = f"{record.tiles - record.failed_tiles} of {record.tiles}" if record.failed_tiles else f"{record.tiles}"
    objects = record.measures.get("objects")
    yield f'<td class="slide">{_link(record)}</td><td class="{record.state.value}">{record.state.value}</td>'
    begun = (f"{record.pixels / 1e6:,.1f}", _text(_pixel_size(record)), f"{record.seconds:,.1f}", tiles)
    yield from (f'<td class="n">{value if record.tiles else ""}</td>' for value in begun)
    yield f'<td class="n">{"" if objects is None else f"{objects:,}"}</td>'
    yield f'<td class="flags">{_text(", ".join(flags.get(record.slide, ())))}</td>'


def _reason(record: SlideRecord) -> str:
    return f"same content as {record.reason}" if record.state is SlideState.SAME else record.reason or ""


def _leave(record: SlideRecord, night: NightSummary) -> str:
    """The command with which a person leaves a failure as it is."""
    if not record.is_bad or record.acknowledged:
        return ""
    command = f"overtile archive --out {pasted(night.archive)} --acknowledge={word(record.slide)}"
    return f"<details><summary>leave it so</summary><code>{_text(command)}</code></details>"


def _pixel_size(record: SlideRecord) -> str:
    """Pixel size that was segmented at, which makes one slide's figures comparable with another's."""
    if record.pixel_size is None:
        return "not known" if record.tiles else ""
    y, x, unit = record.pixel_size
    unit = "µm" if unit == "um" else unit
    return f"{x:.4g} {unit}" if f"{x:.4g}" == f"{y:.4g}" else f"{x:.4g} × {y:.4g} {unit}"


def _picture(record: SlideRecord, night: NightSummary) -> str:
    """The slide's small picture: of one that failed where it came as far as a picture."""
    is_closed = record.state in {SlideState.DONE, SlideState.SAME}
    if not is_closed and not (record.tiles and (night.archive / record.folder / "overlay.png").is_file()):
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
:root { color-scheme: light dark; --line: #8884; --quiet: #888; --bad: #c22; --good: #182; --warn: #a60; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
code { background: #8882; padding: .15em .4em; border-radius: 3px; overflow-wrap: anywhere; }
.verdict { font-weight: 600; } .verdict.bad { color: var(--bad); } .verdict.ok { color: var(--good); }
.verdict.warn, td.flags { color: var(--warn); } .quiet { color: var(--quiet); }
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
th[tabindex] { cursor: pointer; } th[aria-sort] { color: inherit; }
th[aria-sort=ascending]::after { content: " ▲"; } th[aria-sort=descending]::after { content: " ▼"; }
details summary { cursor: pointer; color: var(--quiet); font-size: .85rem; }
@media (max-width: 760px) {
  thead, .n { display: none; }
  tr { display: flex; flex-wrap: wrap; gap: .2rem .8rem; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  td { border: 0; padding: 0; }
  td.slide { flex: 1 1 12rem; } td.reason { flex: 1 1 100%; } td.reason:empty { display: none; }
}
"""

_SCRIPT = """
for (const head of document.querySelectorAll("th")) {
  if (!head.textContent) continue;
  const below = [...head.closest("table").tBodies[0].rows].map((row) => row.cells[head.cellIndex]);
  head.classList.toggle("n", below.some((cell) => cell.classList.contains("n")));
  const sort = () => {
    const body = head.closest("table").tBodies[0], at = head.cellIndex;
    const text = (row) => row.cells[at].textContent.trim();
    const number = (row) => parseFloat(text(row).replaceAll(",", ""));
    const numeric = [...body.rows].some((row) => row.cells[at].classList.contains("n"));
    const was = head.getAttribute("aria-sort");
    const down = was ? was === "ascending" : numeric;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => (Number.isNaN(number(row)) ? -1 : number(row));
    const words = (a, b) => text(a).localeCompare(text(b), "en", { numeric: true });
    const compare = numeric ? (a, b) => value(a) - value(b) : words;
    body.append(...[...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b))));
  };
  head.tabIndex = 0;
  head.title = "sort";
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    sort();
  });
}
"""
