"""A night in Prefect's pages: its sentence and page, a table of failed slides, pictures of those to look at."""

from __future__ import annotations

from functools import partial

from prefect.artifacts import create_image_artifact, create_link_artifact, create_table_artifact

from flows.nightly.night import NightSummary
from flows.nightly.notification import address
from flows.reporting.escaping import markdown
from flows.reporting.prefect_events import recorded
from flows.reporting.prefect_names import artifact_key
from tiling.archives.slide_record import SlideRecord
from tiling.storage.picture import data_url

ROWS = 1000
PICTURES = 8
PICTURE_PX = 480


def show_night(night: NightSummary) -> None:
    """Make the night's artifacts, under keys of its archive's own."""
    key, message = partial(artifact_key, place=night.archive), markdown(str(night))
    page = partial(create_link_artifact, address(night.page), link_text=f"night of {night.title}")
    recorded(partial(page, key=key("night"), description=message))
    failed = [*night.new_failures, *night.standing]
    if failed:
        rows = [{"reason": markdown(r.reason or ""), "slide": markdown(r.slide)} for r in failed[:ROWS]]
        advice = "; ".join(map(markdown, night.advice))
        recorded(partial(create_table_artifact, key=key("failed-slides"), table=rows, description=advice))
    if night.flags:
        rows = [{"to look at": ", ".join(flags), "slide": markdown(slide)} for slide, flags in night.flags.items()]
        about = "Nothing of these failed, and their masks are likely wrong: look before they are used"
        recorded(partial(create_table_artifact, key=key("slides-to-look-at"), table=rows[:ROWS], description=about))
    for record in _pictured(night):
        overlay = night.archive / record.folder / "overlay.png"
        about = f"{record.slide}: {', '.join(night.flags.get(record.slide, ())) or record.reason or ''}"
        picture = partial(create_image_artifact, data_url(overlay, PICTURE_PX), description=markdown(about))
        recorded(partial(picture, key=artifact_key("overlay", night.archive / record.folder)))


def _pictured(night: NightSummary) -> list[SlideRecord]:
    """Slides that a person should look at and that came as far as a picture; new failures first."""
    flagged = [record for record in night.records if record.slide in night.flags]
    found = {record.slide: record for record in (*night.new_failures, *flagged) if record.tiles}
    drawn = (record for record in found.values() if (night.archive / record.folder / "overlay.png").is_file())
    return [record for record, _ in zip(drawn, range(PICTURES), strict=False)]
