"""The door of a Prefect server that a command starts: whoever has the link of the moment is logged in by it, once."""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGIN = "/overtile-login"
LINK_FILE = "link"
_LONGEST_TOKEN = 200

# The token stands behind the #, which no browser sends: no log, referrer or preview of a link has it or uses it up.
# Prefect's pages keep the password where this one puts it, for this address and port alone.
_PAGE = f"""<!doctype html><meta charset="utf-8"><title>overtile</title>
<meta name="referrer" content="no-referrer"><p id="status">Logging in …</p>
<script nonce="NONCE">
fetch("{LOGIN}", {{method: "POST", body: location.hash.slice(1)}}).then(async answer => {{
  const text = await answer.text();
  if (!answer.ok) throw Error(text);
  localStorage.setItem("prefect-password", text);
  location.replace("/");
}}).catch(error => {{ document.getElementById("status").textContent = error.message; }});
</script>"""
_USED_UP = "This link has been used, or is of another server. The file that overtile serve names has the next one."


def make_link(home: Path, pages: str) -> str:
    """The link that logs in once, kept in a private file as long as it does."""
    link = f"{pages}{LOGIN}#{secrets.token_urlsafe(32)}"
    fresh = home / f"{LINK_FILE}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(link + "\n")
    fresh.replace(home / LINK_FILE)
    return link


class Door:
    """Prefect's server with a way in: its pages' empty shell is for everybody, all that they show is not."""

    def __init__(self, app: App, home: Path, secret: str, *, pages: bool) -> None:
        self._app, self._home, self._pages = app, home, pages
        self._password = base64.b64encode(secret.encode()).decode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path == LOGIN and self._pages:
            await self._log_in(scope, receive, send)
        elif scope["type"] == "http" and not self._pages and not path.startswith("/api/"):
            await _answer(send, 404, "text/plain", "Not found")
        else:
            await self._app(scope, receive, send)

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            nonce = secrets.token_urlsafe(16)
            policy = f"default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self'; frame-ancestors 'none'"
            await _answer(send, 200, "text/html; charset=utf-8", _PAGE.replace("NONCE", nonce), policy)
            return
        given = await _body(receive)
        link = (self._home / LINK_FILE).read_text(encoding="utf-8").strip()  # no await until there is another one
        pages, _, token = link.partition(f"{LOGIN}#")
        if not hmac.compare_digest(given, token.encode()):
            await _answer(send, 403, "text/plain; charset=utf-8", _USED_UP)
            return
        make_link(self._home, pages)
        await _answer(send, 200, "text/plain", self._password)


async def _body(receive: Receive) -> bytes:
    found = b""
    while len(found) <= _LONGEST_TOKEN:
        message = await receive()
        found += message.get("body", b"")
        if not message.get("more_body"):
            return found
    return b""


async def _answer(send: Send, status: int, kind: str, text: str, policy: str = "default-src 'none'") -> None:
    headers = {"content-type": kind, "cache-control": "no-store", "content-security-policy": policy}
    headers |= {"referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": text.encode()})


def create_app() -> Door:
    """Prefect's server as its own process makes it, behind the door."""
    from prefect.server.api.server import create_app as create_prefect

    secret = os.environ["PREFECT_SERVER_API_AUTH_STRING"]
    pages = "PREFECT__SERVER_EPHEMERAL" not in os.environ
    return Door(create_prefect(), Path(os.environ["PREFECT_HOME"]), secret, pages=pages)
