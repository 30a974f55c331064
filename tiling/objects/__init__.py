"""Objects of a run: instances of its classes, whole across every seam, and the same for any tiling."""
