"""Work on one tile, in plain classes that Ray only wraps."""
