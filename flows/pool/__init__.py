"""The pool of Ray actors, the cluster they live in, and the scheduler that keeps them busy."""
