"""The pages and what they ask for, as a Starlette application."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flows.errors import FlowError
from flows.viewer.door import Door
from flows.viewer.guard import HOSTS, Guard
from flows.viewer.library import Library
from flows.viewer.reruns import BusyError, RerunRequest, Reruns
from flows.viewer.shown_run import ShownRun, paint_of
from tiling.archives.acknowledge import acknowledge
from tiling.archives.slide_record import SlideRecord
from tiling.errors import TilingError

STATIC = Path(__file__).parent / "static"
PAGES = Path(__file__).parent / "pages"
ROWS_AT_ONCE = 100
MOST_TILES_NAMED = 10_000
LONGEST_BODY = 2**20

_WHOLE = re.compile(r"-?[0-9]{1,15}")
_LABEL = re.compile(r"[0-9]{1,3}")
Answer = TypeVar("Answer")
Index = Annotated[int, Field(ge=0, lt=2**31)]

_REPORT_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Json(JSONResponse):
    """JSON in ASCII: one name of a file whose bytes are no UTF-8 would keep all others from being sent."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class LongError(FlowError):
    """More was sent than can be meant."""


class RerunForm(BaseModel):
    """Form of a rerun: tiles by place, or all of a kind."""

    model_config = ConfigDict(extra="forbid")

    tiles: list[tuple[Index, Index]] = Field(default_factory=list[tuple[int, int]], max_length=MOST_TILES_NAMED)
    failed: bool = False
    damaged: bool = False

    @property
    def request(self) -> RerunRequest:
        kinds = (("failed", self.failed), ("damaged", self.damaged))
        return RerunRequest(tuple(self.tiles), tuple(name for name, is_asked in kinds if is_asked))


class AcknowledgeForm(BaseModel):
    """Form of an acknowledgement: the name of a slide that stands failed."""

    model_config = ConfigDict(extra="forbid")

    slide: str = Field(min_length=1, max_length=4096)


class Site:
    """All answers; one method per address. Those that read files run in threads."""

    def __init__(self, library: Library, token: str) -> None:
        self._library, self._token = library, token
        self.reruns = Reruns()

    def home(self, _: Request) -> Response:
        if self._library.is_archive:
            return self._page("archive.html")
        return RedirectResponse("/run")

    def view(self, _: Request) -> Response:
        return self._page("view.html")

    def report(self, request: Request) -> Response:
        """The report as the run is now: made here, so that nothing of a run folder is ever shown as a page."""
        from flows.reporting.report import render_report

        page = render_report(self._run(request).run).encode(errors="backslashreplace")
        return HTMLResponse(page, headers={"content-security-policy": _REPORT_POLICY})

    def runs(self, request: Request) -> Response:
        """Lines of the archive's table, some at a time."""
        names, start = self._library.names(), max(0, _whole(request, "start"))
        slides = self._slides()
        flags, failures = self._answered(self._library.flags), self._answered(self._library.failures)
        of_run = {each.folder: _failure(each) for each in failures.values() if each.failed_tiles}
        rows = [self._row(name, flags) | of_run.get(name, {}) for name in names[start : start + ROWS_AT_ONCE]]
        first = max(0, start - len(names))
        rows += slides[first : first + ROWS_AT_ONCE - len(rows)]
        return Json({"place": str(self._library.place), "runs": len(names) + len(slides), "rows": rows})

    def run(self, request: Request) -> Response:
        return Json({**self._run(request).facts(), "in_archive": self._library.is_archive})

    def state(self, request: Request) -> Response:
        shown = self._run(request)
        job = self.reruns.of(shown.place)
        # The job first: what the ledger then says is at least as new as a job that has ended.
        facts = job.facts() if job else None
        return Json({**shown.state(), "job": facts})

    def tiles(self, request: Request) -> Response:
        return Response(self._run(request).tile_states(), media_type="application/octet-stream")

    def label(self, request: Request) -> Response:
        found = self._run(request).label_at(_whole(request, "y"), _whole(request, "x"))
        return Json({"label": found})

    def object_(self, request: Request) -> Response:
        return Json(self._run(request).object_at(_whole(request, "y"), _whole(request, "x")))

    def slide(self, request: Request) -> Response:
        return Response(self._run(request).slide(*_square(request)), media_type="image/jpeg")

    def mask(self, request: Request) -> Response:
        shown, asked = self._run(request), request.query_params
        labels = (
            int(text) for text in asked.get("labels", "").split(",") if _LABEL.fullmatch(text) and int(text) < 256
        )
        how = paint_of(shown, labels, safe=asked.get("palette") == "safe", outline=asked.get("style") == "outline")
        return Response(shown.mask(*_square(request), how), media_type="image/png")

    def thumbnail(self, request: Request) -> Response:
        return Response(self._run(request).thumbnail(), media_type="image/jpeg")

    async def rerun(self, request: Request) -> Response:
        try:
            asked = RerunForm.model_validate_json(await _body(request))
        except ValidationError as error:
            return Json({"error": f"no such rerun: {error.errors()[0]['msg']}"}, 422)
        if not asked.request.arguments:
            return Json({"error": "no tile was named; name one"}, 422)
        job = self.reruns.start(self._run(request).place, asked.request)
        return Json({"job": job.facts()}, 202)

    async def acknowledge(self, request: Request) -> Response:
        """Leave a failed slide as it is, as `overtile archive --acknowledge` does."""
        try:
            asked = AcknowledgeForm.model_validate_json(await _body(request))
        except ValidationError as error:
            return Json({"error": f"no such slide: {error.errors()[0]['msg']}"}, 422)
        try:
            (record,) = await run_in_threadpool(acknowledge, self._library.place, [asked.slide])
        except TilingError as error:  # a night is at work, or it no longer stands failed
            return Json({"error": str(error)}, 409)
        return Json({"slide": record.slide, "acknowledged": True})

    def _answered(self, ask: Callable[[], dict[str, Answer]]) -> dict[str, Answer]:
        try:
            return ask()
        except (TilingError, OSError):  # a line of the table says so
            return {}

    def _row(self, name: str, flags: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """A run that can't be read is a line of its own: the others are shown all the same."""
        try:
            row = self._library.run(name).row()
            return {**row, "flags": [*flags[name]]} if name in flags else row
        except (TilingError, OSError) as error:
            return {"name": name, "error": str(error)}

    def _slides(self) -> list[dict[str, Any]]:
        """A line for each slide without a run; an archive's ledger that can't be read is one of its own."""
        try:
            records = self._library.slides_without_run()
        except (TilingError, OSError) as error:
            return [{"name": "the archive's ledger", "error": str(error)}]
        return [
            {"name": each.slide, "state": each.state.value, "error": each.reason or "no reason was given"}
            | (_failure(each) if each.is_bad else {})
            for each in records
        ]

    def _run(self, request: Request) -> ShownRun:
        return self._library.run(request.query_params.get("run") or next(iter(self._library.names()), ""))

    def _page(self, name: str) -> Response:
        return HTMLResponse((PAGES / name).read_text(encoding="utf-8").replace("{{token}}", self._token))


def make_site(library: Library, door: Door) -> Starlette:
    """The application, with a secret of its own for what its pages may change, for those whom the door lets in."""
    token = secrets.token_urlsafe(32)
    site = Site(library, token)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        site.reruns.stop()

    answers: dict[str, Callable[[Request], Response]] = {
        "/": site.home,
        "/run": site.view,
        "/report": site.report,
        "/api/runs": site.runs,
        "/api/run": site.run,
        "/api/state": site.state,
        "/api/tiles": site.tiles,
        "/api/label": site.label,
        "/api/object": site.object_,
        "/api/slide/{zoom}/{row}/{col}": site.slide,
        "/api/mask/{zoom}/{row}/{col}": site.mask,
        "/api/thumbnail": site.thumbnail,
    }
    return Starlette(
        routes=[
            *(Route(path, answer) for path, answer in answers.items()),
            Route("/api/rerun", site.rerun, methods=["POST"]),
            Route("/api/acknowledge", site.acknowledge, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=[*HOSTS], www_redirect=False),
            Middleware(Guard, token=token, door=door),
        ],
        exception_handlers={TilingError: _not_found, BusyError: _busy, LongError: _too_long, OSError: _unreadable},
        lifespan=lifespan,
    )


def _failure(record: SlideRecord) -> dict[str, Any]:
    """Facts that the table needs to offer a failed slide's acknowledgement, or to show it."""
    return {"failed_slide": record.slide, "acknowledged": record.acknowledged}


def _not_found(_: Request, error: Exception) -> Response:
    return Json({"error": str(error)}, 404)


def _busy(_: Request, error: Exception) -> Response:
    return Json({"error": str(error)}, 409)


def _too_long(_: Request, error: Exception) -> Response:
    return Json({"error": str(error)}, 413)


def _unreadable(_: Request, error: Exception) -> Response:
    return Json({"error": str(error)}, 500)


async def _body(request: Request) -> bytes:
    """Body of a request, so far as a rerun can be that long: the rest would only fill memory."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise LongError(f"a rerun is named in {LONGEST_BODY} bytes at most, and more were sent; name fewer tiles")
    return body


def _whole(request: Request, name: str, default: int = 0) -> int:
    text = request.query_params.get(name)
    return default if text is None else _number(text, name)


def _square(request: Request) -> tuple[int, int, int]:
    zoom, row, col = (_number(request.path_params[name], name) for name in ("zoom", "row", "col"))
    return zoom, row, col


def _number(text: str, name: str) -> int:
    """A whole number of no more digits than any place in an image has: Python's own reading fails at 4,301."""
    if not _WHOLE.fullmatch(text):
        raise TilingError(f"{name} {text[:20]!r} is no whole number of up to 15 digits; load the page again")
    return int(text)
