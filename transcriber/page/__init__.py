"""The status page: one static file, and the figures that it shows, pushed to whoever looks."""
