"""Exports: one file per format, each from the finished mask alone."""
