"""Slides in scanners' own formats, through OpenSlide."""
