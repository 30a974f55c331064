"""Options of segmentations, archives, exports and trainings, as pydantic types."""
