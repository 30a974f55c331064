"""Places of pixels on the slide or the earth: CRS, placement, and what they measure there."""
