"""Access to the viewer: whoever opens the link that the command line prints, and nobody else on the machine.

A port of 127.0.0.1 is open to every account. So the link holds a key, which the first visit turns into a cookie; the
address that the browser then shows, keeps and passes on has no key in it.
"""

from __future__ import annotations

import html
import secrets
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Scope

PARAMETER = "token"
_COOKIE = "overtile-{port}"
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}<p>{text}</p></html>\n'
)
_CLOSED = (
    "This viewer is open to whoever started it: open the link that overtile view has printed, which holds its "
    "token. Tokens are of one start each; an older link opens nothing."
)


class Door:
    """Access to one start of the viewer: by its link, then by a cookie.

    Attributes:
        token: what the link holds.
    """

    def __init__(self) -> None:
        self.token, self._session = secrets.token_urlsafe(32), secrets.token_urlsafe(32)

    def link(self, address: str) -> str:
        """The address of the first page, which lets in."""
        return f"{address}?{urlencode({PARAMETER: self.token})}"

    def answer(self, scope: Scope) -> Response | None:
        """Answer in place of a page; None where whoever asks is let in."""
        headers = Headers(scope=scope)
        name = _COOKIE.format(port=_port(headers))
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] == "GET" and any(_is(value, self.token) for key, value in asked if key == PARAMETER):
            answer = _leading_to(scope["path"], [pair for pair in asked if pair[0] != PARAMETER], headers)
            # The name has the port, which cookies of one host share otherwise: two viewers keep theirs apart.
            answer.set_cookie(name, self._session, path="/", httponly=True, samesite="strict")
            return answer
        if any(_is(value, self._session) for value in _cookies(headers, name)):
            return None
        return HTMLResponse(_PAGE.format(title="closed", refresh="", text=_CLOSED), 403)


def _leading_to(path: str, query: list[tuple[str, str]], headers: Headers) -> Response:
    """To the same address without the key, on this server whatever the path begins with."""
    clean = "/" + quote(path.lstrip("/\\")) + (f"?{urlencode(query)}" if query else "")
    if headers.get("sec-fetch-site") != "cross-site":
        return RedirectResponse(clean, 303)
    # On a link in another site's page a browser sends no strict cookie along, not even after a redirect; it does for
    # an address that our own page leads to.
    leads = f'<meta http-equiv="refresh" content="0; url={html.escape(clean)}">'
    text = f'<a href="{html.escape(clean)}">Go on to the page</a>'
    return HTMLResponse(_PAGE.format(title="overtile", refresh=leads, text=text))


def _port(headers: Headers) -> str:
    """As the browser knows it, which behind a forwarded port is another than ours."""
    port = headers.get("host", "").rpartition(":")[2]
    return port if port.isascii() and port.isdecimal() and len(port) <= 5 else "80"


def _cookies(headers: Headers, name: str) -> list[str]:
    """The values of that name."""
    values: list[str] = []
    for line in headers.getlist("cookie"):
        for each in line.split(";"):
            key, _, value = each.strip().partition("=")
            values += [value] if key == name else []
    return values


def _is(given: str, wanted: str) -> bool:
    """Compared in a time that says nothing of where they differ."""
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())
