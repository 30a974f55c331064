"""Guard that keeps other web pages out of a server on this machine.

A page from elsewhere may send requests to localhost, and by rebinding its own name to 127.0.0.1 it may even read the
answers. So the Host must be this machine's (`TrustedHostMiddleware`, which the site puts in front), whoever asks must
have come by the link of this start (`door`), and what changes something must come from our own page, which alone can
read the secret of this start.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.viewer.door import Door

HOSTS = ("127.0.0.1", "localhost")
TOKEN_HEADER = "x-overtile-token"
SAFE_METHODS = ("GET", "HEAD")

_LIBRARY_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
"""The one rule that the viewer library writes into the page itself."""

_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {_LIBRARY_STYLE}; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",  # slides may show patients' tissue: nothing of them stays in a browser's cache
}


class Guard:
    """ASGI middleware: refuses what our own page didn't send, and tells the browser what the page may do.

    Args:
        app: what is guarded.
        token: the secret that our own page knows.
        door: who is let in.
    """

    def __init__(self, app: ASGIApp, token: str, door: Door) -> None:
        self._app, self._token, self._door = app, token, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if (answer := self._door.answer(scope)) is not None:
            await answer(scope, receive, send_guarded)
            return
        if scope["method"] not in SAFE_METHODS and not self._is_ours(Headers(scope=scope)):
            refusal = "only the page of this start may change something; load the page again"
            await JSONResponse({"error": refusal}, 403)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _is_ours(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        return secrets.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self._token.encode()) and (
            origin is None or origin == f"http://{headers.get('host', '')}"
        )
