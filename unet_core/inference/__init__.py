"""Inference of tiles on a device."""
