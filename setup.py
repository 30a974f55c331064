"""Addresses in the package's metadata; everything else of the build stands in pyproject.toml.

The project has no address of its own yet, so that what is always named is what it is built on. A wheel's own addresses
are those of whoever builds it: `OVERTILE_SOURCE`, `OVERTILE_ISSUES` and `OVERTILE_DOCUMENTATION` at the time of the
build, and without the first the public https address that the checkout's git names as its origin.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from setuptools import setup

ROOT = Path(__file__).resolve().parent
BUILT_ON = {
    "U-Net (paper)": "https://doi.org/10.1007/978-3-319-24574-4_28",
    "OME-Zarr 0.5 (specification)": "https://ngff.openmicroscopy.org/0.5/",
    "Training images of nuclei": "https://bbbc.broadinstitute.org/BBBC038",
}
OWN = {"Source": "OVERTILE_SOURCE", "Issues": "OVERTILE_ISSUES", "Documentation": "OVERTILE_DOCUMENTATION"}


def public(address: str) -> str:
    """The address where others can open it as it is: https, a host with a domain, no name nor token of an account."""
    try:
        parts = urlsplit(address.strip())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    last = host.rpartition(".")[2]
    if parts.scheme != "https" or not host.rpartition(".")[0] or last.isdigit() or last in {"local", "internal", "lan"}:
        return ""
    where = f"{host}:{port}" if port else host
    return f"https://{where}{parts.path.removesuffix('.git').rstrip('/')}"


def origin() -> str:
    """Address that git names as this checkout's origin; empty in a folder of another repository, or in none."""
    command = ["git", "-C", str(ROOT), "config", "--get", "remote.origin.url"]
    if not (ROOT / ".git").exists():
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def addresses() -> dict[str, str]:
    """Addresses by their labels, in the order in which they are shown."""
    own: dict[str, str] = {}
    for label, variable in OWN.items():
        given = os.environ.get(variable, "")
        if given and not public(given):
            raise SystemExit(
                f"{variable}={given} is no public https address, which a wheel's metadata must name: "
                f"give one such as https://host.example/team/overtile, or none"
            )
        own[label] = public(given)
    own["Source"] = own["Source"] or public(origin())
    return {label: address for label, address in own.items() if address} | BUILT_ON


if __name__ == "__main__":
    setup(project_urls=addresses())
