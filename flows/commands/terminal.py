"""Terminal output: live progress, the end of a run, the tile grid."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from flows.commands.lines import ProgressLines
from flows.commands.output import output, print_event
from flows.config.base import ConfigBase
from flows.config.run import SegmentConfig
from flows.launch import run_flow
from flows.reporting.escaping import PlainConsole, plain
from flows.reporting.progress import Listener, Progress, format_seconds
from flows.reporting.terminals import is_live
from tiling.escaping import word
from tiling.export.foreign_files import sentence, unknown_files
from tiling.runs.ledger import TileState
from tiling.storage.place import pasted

if TYPE_CHECKING:
    from flows.run.steps import Outcome
    from flows.run.verification_report import VerificationReport
    from tiling.runs.run import Run

STATE_STYLE = {
    TileState.PENDING: ("·", "bright_black"),
    TileState.DONE: ("█", "green"),
    TileState.FAILED: ("×", "bold red"),
    TileState.SKIPPED: ("░", "blue"),
    TileState.DAMAGED: ("▚", "bold magenta"),
}


def run_with_progress(console: Console, name: str, config: ConfigBase) -> Any:
    """Run the flow of that name under a live bar, or off a terminal with lines, and return what it returns."""
    asked = output()
    if asked.progress != "bar" or asked.is_quiet:
        return run_flow(name, config, print_event if asked.progress == "json" else lambda progress: None)
    if asked.is_json:  # stdout is the program's: the bar is for whoever looks on
        console = PlainConsole(stderr=True)
    if isinstance(config, SegmentConfig):
        from flows.run.preflight import check  # and with it every reader of images

        for fact, text in check(config).notes.items():
            console.print(f"{fact}: {text}", markup=False, highlight=False, soft_wrap=True)
    with shown_progress(console) as show:
        return run_flow(name, config, show)


@contextmanager
def shown_progress(console: Console) -> Generator[Listener]:
    """A live bar; off a terminal, and in a notebook's cell, lines."""
    if not is_live(console.file):
        with ProgressLines(partial(console.print, markup=False, highlight=False, soft_wrap=True)) as lines:
            yield lines.show
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None, text="Prefect and Ray")

        def show(progress: Progress) -> None:
            if not progress.total:
                bar.update(task, description=progress.stage, total=None, text="")
                return
            rate, eta = progress.megapixels_per_second, format_seconds(progress.eta_seconds)
            failed = f" · {progress.failed} failed" if progress.failed else ""
            text = f"{progress.done}/{progress.total} {progress.unit} · {rate:.2f} MPix/s · {eta} left{failed}"
            bar.update(task, description=progress.stage, total=progress.total, completed=progress.done, text=text)

        yield show


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Say in a few lines how the run ended, what was found, and what to do about failed tiles."""
    from flows.reporting.report import REPORT_NAME  # a status has no use for what it loads

    state = "complete" if outcome.complete else f"NOT complete ({outcome.missing})"
    console.print(
        f"{state}: {outcome.done} of {outcome.tiles} tiles computed, {outcome.skipped} skipped as background, "
        f"{len(outcome.failed)} failed, in {format_seconds(outcome.seconds)} "
        f"({outcome.megapixels_per_second:.2f} MPix/s while inferring)",
        highlight=False,
        soft_wrap=True,
    )
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in outcome.seconds_per_stage.items())
    console.print(f"work per stage: {stages}", highlight=False, soft_wrap=True)
    console.print(f"limited by {outcome.limit}", highlight=False, soft_wrap=True)
    for line in outcome.found:
        console.print(f"found:   {line}", markup=False, highlight=False, soft_wrap=True)
    for tile, reason in list(outcome.failed.items())[:20]:
        console.print(f"  tile {tile}: {reason}", markup=False, highlight=False)
    if not outcome.complete:
        console.print(f"to complete it: {outcome.remedy}", highlight=False, soft_wrap=True)
    console.print(f"mask:    {outcome.run}/mask.ome.zarr", highlight=False, soft_wrap=True)
    console.print(f"picture: {outcome.run}/overlay.png", highlight=False, soft_wrap=True)
    console.print(f"exports: {outcome.run}/exports", highlight=False, soft_wrap=True)
    console.print(f"report:  {outcome.run}/{REPORT_NAME}", highlight=False, soft_wrap=True)
    console.print(f"look:    overtile view {pasted(outcome.run)}", markup=False, highlight=False, soft_wrap=True)


def print_training(console: Console, bundle: Path) -> None:
    """Print how a training ended and where to look."""
    from unet_core.bundles.card import read_card

    facts = read_card(bundle).training
    for group, score in facts["validation"].items():
        figures = ", ".join(
            f"{name} {score[field]:.4f}" if isinstance(score[field], float) else f"{name} -"
            for name, field in (
                ("mean IoU", "mean_iou"),
                ("mean Dice", "mean_dice"),
                ("objects' AP", "average_precision"),
            )
        )
        console.print(f"{group}: {figures} on {score['images']} validation images", highlight=False, soft_wrap=True)
    console.print(f"ended {facts['ended']}, best at step {facts['step']} of {facts['steps']}", highlight=False)
    console.print(f"bundle:  {bundle}", highlight=False, soft_wrap=True)
    console.print(f"curves:  {bundle.parent / 'curves.png'}", highlight=False, soft_wrap=True)
    console.print(f"images:  {bundle.parent / 'validation.png'}", highlight=False, soft_wrap=True)
    console.print(
        f"use it:  overtile segment IMAGE --model {word(bundle.absolute())} --out RUN", highlight=False, soft_wrap=True
    )


def print_verification(console: Console, report: VerificationReport) -> None:
    """Say what was checked, what was found, and what to do about it."""
    places = [*report.recomputed, *report.seams]
    console.print(
        f"{_word(report)}: {report.shards} shards looked at, {len(report.damaged)} "
        f"damaged; {len(report.pyramid_faults)} damaged above them; {len(report.recomputed)} tiles and "
        f"{len(report.seams)} places across seams computed again, {report.differing} of "
        f"{sum(each.pixels for each in places)} labels differ",
        highlight=False,
        soft_wrap=True,
    )
    for name, fault in list(report.damaged.items())[:20]:
        console.print(f"  tile {name}: {fault}", markup=False, highlight=False)
    for name in report.pyramid_faults[:20]:
        console.print(f"  pyramid {name}: doesn't show the level below", markup=False, highlight=False)
    for text in report.lacking:
        console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)
    for file, fault in report.exports.items():
        console.print(f"  {file}: {fault}", markup=False, highlight=False, soft_wrap=True)
    for text in report.unchecked:
        console.print(f"  can't be known: {text}", markup=False, highlight=False, soft_wrap=True)
    for text in report.notes:
        console.print(f"  note: {text}", markup=False, highlight=False, soft_wrap=True)
    for each in (each for each in places if each.differing):
        text = f"  labels in {each.place}: {each.differing} of {each.pixels} differ when computed again"
        console.print(text, markup=False, highlight=False)
    if report.remedy and not report.pending:
        console.print(f"repair it with: {report.remedy}", markup=False, highlight=False, soft_wrap=True)


def _word(report: VerificationReport) -> str:
    if report.is_sound:
        return "sound"
    return "NOT sound" if report.is_wrong else "NOT known to be sound"


def print_status(console: Console, run: Run) -> None:
    """Counts, rate, ETA and the grid."""
    state = run.ledger.fold()
    counts = {kind: state.count(kind) for kind in TileState}
    rate = state.pixels / 1e6 / state.elapsed if state.elapsed > 0 else 0.0
    done = counts[TileState.DONE]
    eta = counts[TileState.PENDING] * state.elapsed / done if done and state.elapsed > 0 else None
    console.print(f"{run.path}: {run.card.image.path} with {run.card.model.name}", highlight=False, soft_wrap=True)
    console.print(
        f"{done} done, {counts[TileState.SKIPPED]} skipped, {counts[TileState.FAILED]} failed, "
        + (f"{counts[TileState.DAMAGED]} damaged, " if counts[TileState.DAMAGED] else "")
        + f"{counts[TileState.PENDING]} to do of {run.plan.count} tiles; {rate:.2f} MPix/s"
        + (f", {format_seconds(eta)} left at that rate" if counts[TileState.PENDING] else ""),
        highlight=False,
    )
    verdict = "complete" if state.is_complete else f"NOT complete ({state.missing}); {state.remedy(run.path)}"
    console.print(verdict, markup=False, highlight=False, soft_wrap=True)
    if not run.plan.grid.is_own:
        (height, width), (y, x) = run.plan.mask.shape, run.plan.grid.scale
        console.print(
            f"mask: {height} x {width} px, {y if y == x else f'{y} x {x}'} mask pixels per image pixel", highlight=False
        )
    for fact, value in run.card.notes.items():
        text = f"{value:.3%} of labels" if isinstance(value, float) else value
        console.print(f"{fact}: {text}", highlight=False)
    if message := sentence(unknown_files(run)):
        console.print(message, markup=False, highlight=False, soft_wrap=True)
    console.print(tile_grid(run, console.width))
    for index, record in list({**state.failed, **state.damaged}.items())[:20]:
        console.print(f"  tile {run.plan.tile(index).name}: {record.reason}", markup=False, highlight=False)


def print_model(console: Console, reference: str) -> None:
    """A bundle's card and footprint, with the layers that set it and the work that tiling adds."""
    from unet_core.bounds import footprint, operations
    from unet_core.bundles.bundle import load_bundle

    bundle = load_bundle(reference)
    card, bands = bundle.card, len(bundle.card.bands)
    found = footprint(bundle.module, bands)
    table = Table.grid(padding=(0, 2))
    table.add_row("name", plain(f"{card.name}: {card.description}"))
    table.add_row("architecture", plain(f"{card.architecture} {card.parameters}"))
    table.add_row("digest", bundle.digest)
    table.add_row("parameters", f"{sum(p.numel() for p in bundle.module.parameters()):,}")
    table.add_row("stride", f"{found.stride[0]} x {found.stride[1]} px; {plain(found.reasons.stride_y)}")
    for side in ("top", "bottom", "left", "right"):
        table.add_row(f"halo {side}", plain(getattr(found.reasons, side)))
    if found.scale != (1, 1):
        table.add_row("output grid", f"{found.scale[0]} x {found.scale[1]} output pixels per image pixel")
    if any(found.context.sides):
        top, bottom, left, right = found.context.sides
        table.add_row("context", f"mirrored outside the image: {top} + {bottom} px in y, {left} + {right} px in x")
    for core_px in (512, 1024):
        work = operations(bundle.module, bands, (core_px, core_px))
        table.add_row(
            f"core {core_px}",
            f"{work.ratio:.3f} of the useful operations; a plain halo would cost {work.plain_ratio:.3f}",
        )
    console.print(table, highlight=False)


def tile_grid(run: Run, width: int) -> Text:
    """The grid of tiles, one character each; where it is wider than the terminal, one per square of tiles.

    A character shows the worst state that it stands for: failed, damaged, to do, done, then skipped.
    """
    rows, cols = run.plan.shape
    states = run.ledger.fold().states.reshape(rows, cols)
    step = max(1, -(-cols // max(1, width - 2)))
    severity = (TileState.FAILED, TileState.DAMAGED, TileState.PENDING, TileState.DONE, TileState.SKIPPED)
    text = Text(no_wrap=True)
    for y in range(0, rows, step):
        for x in range(0, cols, step):
            held = states[y : y + step, x : x + step]
            worst = next(kind for kind in severity if (held == kind).any())
            text.append(*STATE_STYLE[worst])
        text.append("\n")
    text.append("█ done  ░ skipped  × failed  · to do", "bright_black")
    if step > 1:
        text.append(f"  (one character for {step} x {step} tiles)", "bright_black")
    return text
