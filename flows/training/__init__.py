"""Training: examples, the flow, and pictures of how it went."""
