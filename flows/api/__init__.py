"""The Python face: `segment_image`, `open_run` and what they return."""
