"""What the daemon serves over HTTP: probes, metrics, the status page."""
