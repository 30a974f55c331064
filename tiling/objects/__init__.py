"""Objects of a mask: what is measured of each."""
