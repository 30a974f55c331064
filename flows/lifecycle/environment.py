"""Settings that Prefect and Ray read at import."""

from __future__ import annotations

import os
from importlib.util import find_spec

from flows.errors import PoolError
from flows.reporting.logs import configure_logs

OWN_HOSTS = ("127.0.0.1", "localhost")


def has_cluster() -> bool:
    """True if Ray and Prefect are installed: the extra `cluster`."""
    return all(find_spec(name) is not None for name in ("ray", "prefect"))


def expect_cluster() -> None:
    """Refuse what needs Ray and Prefect where they aren't installed.

    Raises:
        PoolError: how to install them.
    """
    if not has_cluster():
        raise PoolError(
            "this needs Ray and Prefect, which are not installed: without them one run is computed in one process. "
            "Install them with pip install 'overtile[cluster]', or segment one image without workers and ray-address"
        )


def quiet_environment(prefect_level: str = "CRITICAL") -> None:
    """One command's terminal shows what it says itself, and nothing is sent anywhere; what the user set wins."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", prefect_level)
    # What its event loop logs of a server that is gone already says nothing of the run.
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # A busy machine starts the embedded server slowly; giving up on it would lose a night.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    # Prefect's client asks a dead server for a minute, each time; flows.reporting.prefect_events asks again by itself.
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    bypass_proxy_on_localhost()
    configure_logs()


def bypass_proxy_on_localhost() -> None:
    """Bypass proxies for this command's own servers; for other hosts the environment's settings hold."""
    if not any(name.lower() in {"http_proxy", "https_proxy", "all_proxy"} for name in os.environ):
        return
    for name in ("NO_PROXY", "no_proxy"):
        former = os.environ.get(name) or os.environ.get(name.swapcase(), "")
        hosts = [each.strip() for each in former.split(",") if each.strip()]
        os.environ[name] = ",".join(dict.fromkeys((*hosts, *OWN_HOSTS)))
