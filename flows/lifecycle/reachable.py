"""Check of the configured Prefect server: asked once, before anything else has started."""

from __future__ import annotations

import os
import threading
from contextvars import copy_context

from flows.errors import ConfigError

PATIENCE_SECONDS = 20.0


def expect_prefect() -> None:
    """Ask it for what a run needs, with the address, the password and the key of the environment or the profile.

    Raises:
        ConfigError: it can't be reached, doesn't let us in, or isn't Prefect's.
    """
    from prefect.settings import get_current_settings

    faults: list[str] = []
    ask = copy_context()  # a caller's settings are in it
    asking = threading.Thread(target=lambda: faults.append(ask.run(_fault)), name="prefect", daemon=True)
    asking.start()
    asking.join(PATIENCE_SECONDS)
    fault = faults[0] if faults else f"no answer within {PATIENCE_SECONDS:g} s"
    if not fault:
        return
    source = "PREFECT_API_URL" if "PREFECT_API_URL" in os.environ else "PREFECT_API_URL of Prefect's profile"
    refused = "401" in fault or "403" in fault
    remedy = "set PREFECT_API_AUTH_STRING to its user:password, or PREFECT_API_KEY" if refused else "start it"
    raise ConfigError(
        f"{source} names the API of a Prefect server, and {get_current_settings().api.url} can't be used ({fault}): no "
        f"flow could be recorded; {remedy}, correct the address (http://host:4200/api), or unset it for an embedded one"
    )


def _fault() -> str:
    """The fault, on one line; nothing when all is well."""
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            client.read_flows(limit=1)
    except Exception as error:  # noqa: BLE001 (whatever answers there, it is shown on one line)
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return f"it answers {status}"
        return " ".join(str(error).split())[:160] or type(error).__name__
    return ""
