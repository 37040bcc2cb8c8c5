"""The life of one daemon: start, run, swap the model, stop."""
