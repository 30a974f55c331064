"""Where pixels lie: on the slide or the earth, in which CRS, and what they measure there."""
