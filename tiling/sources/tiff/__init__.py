"""TIFF images and the files beside them."""
