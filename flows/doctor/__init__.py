"""Checks of a machine, its storage and its cluster, each with its remedy."""
