"""One daemon: it starts, runs, swaps the model, and stops."""
