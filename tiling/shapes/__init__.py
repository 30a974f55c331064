"""Objects of a label image as polygons of pixel edges, band of rows by band of rows.

An object is all pixels of one label that hang together by their edges (4-connectivity). Its polygon runs along pixel
edges: rasterised again, by pixel centres, all polygons give the label image back exactly. No more is held at a time
than a band, and the outlines of the objects that reach its last row.
"""

from tiling.shapes.edges import subdivided
from tiling.shapes.polygonize import polygonize
from tiling.shapes.shapes import Shapes, in_larger_batches

__all__ = ["Shapes", "in_larger_batches", "polygonize", "subdivided"]
