"""The part of an image that is segmented: view, region, polygons, foreground."""
