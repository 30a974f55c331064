"""Nights of an archive: its slides, one after the other, through one pool."""
