"""Types of `overtile` for type checkers, which take none from a single module that is installed (PEP 561)."""

from flows.api.segment_image import open_run as open_run
from flows.api.segment_image import segment_image as segment_image
from flows.api.segmentation import Segmentation as Segmentation
from tiling.runs.run import Run as Run

__all__ = ["Run", "Segmentation", "__version__", "open_run", "segment_image"]

__version__: str
