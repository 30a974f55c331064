"""Models of the Hugging Face Hub, by name and commit: files that are read safely alone, each held to its digest."""
