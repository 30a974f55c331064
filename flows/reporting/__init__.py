"""Reports to people and programs: progress, logs, metrics, pages."""
