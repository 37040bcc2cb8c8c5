"""The commands of `transcriber`, one of which runs the daemon."""
