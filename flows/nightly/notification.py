"""Notification of a night: one line, and the same for programs; to a webhook, or to a command on its input."""

from __future__ import annotations

import http.client
import json
import logging
import os
import shlex
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.config.deployed import NOTIFY
from flows.nightly.night import NightSummary
from flows.reporting.counting import count
from flows.reporting.escaping import plain
from flows.reporting.progress import format_seconds
from tiling.archives.history import shown_time
from tiling.archives.slide_record import SlideState
from tiling.escaping import some
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place

logger = logging.getLogger(__name__)

NAMES_SHOWN = 3
WEBHOOK_SECONDS, COMMAND_SECONDS = 15.0, 60.0
_REDIRECTS = range(300, 400)


@dataclass(frozen=True, slots=True)
class Notification:
    """Message that is sent: `text` is one line, `facts` says the same to programs."""

    text: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def body(self) -> bytes:
        """JSON with the line under `text`, where Slack, Teams and Mattermost look for it."""
        return json.dumps({"text": self.text, **self.facts}, default=str).encode()


def of_night(night: NightSummary) -> Notification:
    """The line of a night that ended: what is done, what is new, what is left, and where to look."""
    parts = [
        f"{night.verdict.value}; {count(len(night.of(SlideState.DONE)), 'slide')} done",
        _named(night.new_failures, "failed again", "failed again")
        if night.is_rerun
        else _named(night.new_failures, "new failure"),
        f"{count(len(night.standing), 'known failure')}" if night.standing else "",
        f"{len(night.acknowledged)} acknowledged" if night.acknowledged else "",
        _flagged(night),
        _named(night.of(SlideState.GONE), "slide gone", "slides gone"),
        f"{len(night.missing)} done and no longer in the source ({some(night.missing, NAMES_SHOWN)})"
        if night.missing
        else "",
        str(night.left) if night.left.slides else "",
        _slowest(night),
        f"ended by {night.ended_by}",
    ]
    message = ", ".join(part for part in parts if part)
    before = "".join(f"; {warning}" for warning in night.warnings)
    text = f"overtile {_name(night.archive)}, night of {night.title}: {message}{before}; {address(night.page)}"
    return Notification(
        plain(text),
        {
            "archive": str(night.archive),
            "night": night.name,
            "verdict": night.verdict.value,
            "counts": night.counts,
            "new_failures": [record.slide for record in night.new_failures],
            "known_failures": [record.slide for record in night.standing],
            "to_look_at": {slide: list(flags) for slide, flags in night.flags.items()},
            "no_longer_in_the_source": list(night.missing),
            "left_slides": night.left.slides,
            "left_seconds": night.left.seconds,
            "left_nights": night.left.nights,
            "warnings": list(night.warnings),
            "page": address(night.page),
        },
    )


def of_refusal(archive: Place, reason: str, now: float) -> Notification:
    """The line of a night that did not begin: the next one would be refused alike, until what it says is mended."""
    text = f"overtile {_name(archive)}, night of {shown_time(now)}: did not begin: {reason}"
    return Notification(plain(text), {"archive": str(archive), "verdict": "refused", "reason": reason})


def of_death(archive: Place, reason: str, now: float) -> Notification:
    """The line of a night that died."""
    text = f"overtile {_name(archive)}, night of {shown_time(now)}: died: {reason}; the next night resumes"
    return Notification(plain(text), {"archive": str(archive), "verdict": "died", "reason": reason})


def wanted(notify: str | None) -> str | None:
    """The address or command that was given, or else that of the environment."""
    return notify or os.environ.get(NOTIFY) or None


def send(notification: Notification, to: str | None) -> None:
    """Send it. A webhook or a command that fails costs the notification and never the night: one line says so."""
    if to is None:
        return
    is_address = to.startswith(("http://", "https://"))
    try:
        if is_address:
            _post(to, notification.body)
        else:
            _run(shlex.split(to), notification.text)
    except (OSError, ValueError, http.client.HTTPException, subprocess.SubprocessError) as error:
        # Neither the address nor the command is repeated: either may hold a password.
        what = "webhook" if is_address else "command"
        logger.warning("the night's notification could not be sent to its %s: %s", what, plain(_reason(error)))


def address(page: Place) -> str:
    """Address at which a browser finds a page; in a bucket its name there."""
    return str(page) if isinstance(page, ObjectPath) else page.absolute().as_uri()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is the answer: behind it the message would be left out, and what answers there would count."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def _post(to: str, body: bytes) -> None:
    """Post it; nobody waits longer than the limit, though a server may answer byte by byte."""
    request = urllib.request.Request(to, body, {"Content-Type": "application/json", "User-Agent": "overtile"})
    failed: list[Exception] = []

    def post() -> None:
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=WEBHOOK_SECONDS):
                return
        except (OSError, ValueError, http.client.HTTPException) as error:
            failed.append(error)

    posting = threading.Thread(target=post, daemon=True)
    posting.start()
    posting.join(WEBHOOK_SECONDS)
    if posting.is_alive():
        raise TimeoutError(f"it gave no whole answer within {WEBHOOK_SECONDS:.0f} s")
    if failed:
        raise failed[0]


def _run(command: Sequence[str], text: str) -> None:
    if not command:
        raise ValueError("it is empty")
    subprocess.run(command, input=f"{text}\n".encode(), stdout=subprocess.DEVNULL, timeout=COMMAND_SECONDS, check=True)


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.InvalidURL):
        return "its address is none"  # which it repeats
    if isinstance(error, http.client.HTTPException):
        return f"its answer is not HTTP's ({type(error).__name__})"
    if isinstance(error, urllib.error.HTTPError) and error.code in _REDIRECTS:
        return f"it answered {error.code} {error.reason}: it leads to another address; give that one"
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, subprocess.TimeoutExpired):
        return f"it took more than {error.timeout:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        return f"it ended with code {error.returncode}"
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


def _name(archive: Place) -> str:
    return archive.name or str(archive)


def _named(records: Sequence[Any], one: str, many: str | None = None) -> str:
    if not records:
        return ""
    noun = one if len(records) == 1 else many or f"{one}s"
    return f"{len(records)} {noun} ({some([record.slide for record in records], NAMES_SHOWN)})"


def _flagged(night: NightSummary) -> str:
    if not night.flags:
        return ""
    shown = "; ".join(f"{slide}: {', '.join(flags)}" for slide, flags in [*night.flags.items()][:NAMES_SHOWN])
    rest = f" and {len(night.flags) - NAMES_SHOWN} more" if len(night.flags) > NAMES_SHOWN else ""
    return f"{len(night.flags)} to look at ({shown}{rest})"


def _slowest(night: NightSummary) -> str:
    slowest = night.slowest
    return f"slowest {slowest.slide} with {format_seconds(slowest.seconds)}" if slowest is not None else ""
