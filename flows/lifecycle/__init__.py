"""Beginning and end of a command: environment, Prefect's server, stops on request, states of flows."""
