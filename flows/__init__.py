"""Flows, actors and commands: when and where things run. For Python: `import overtile`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.api.segment_image import open_run, segment_image

__all__ = ["open_run", "segment_image"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use; the package's own modules need none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flows.api import segment_image

    return getattr(segment_image, name)
