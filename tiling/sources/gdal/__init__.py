"""Rasters of formats that GDAL alone reads, in a process of its own."""
