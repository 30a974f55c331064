"""The public names of overtile: `import overtile`, then `overtile.segment_image(…)` or `overtile.open_run(…)`.

Names load on first use, so that the import itself is quick and imports neither torch, Ray nor Prefect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.api.segment_image import open_run, segment_image
    from flows.api.segmentation import Segmentation
    from tiling.runs.run import Run

    __version__: str

__all__ = ["Run", "Segmentation", "__version__", "open_run", "segment_image"]

_HOMES = {
    "Run": "tiling.runs.run",
    "Segmentation": "flows.api.segmentation",
    "open_run": "flows.api.segment_image",
    "segment_image": "flows.api.segment_image",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("overtile")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}")
    import sys
    from importlib import import_module

    from flows.entry import refusal
    from flows.lifecycle.loading import uncollected

    if message := refusal(sys.platform):
        raise ImportError(message)
    with uncollected():
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
