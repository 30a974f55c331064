"""Archives: the slides of a source, and a folder of their runs."""
