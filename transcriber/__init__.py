"""Speech on NATS in, text on NATS out, within a promised latency and with every second accounted for."""

from importlib.metadata import version

__version__ = version("transcriber")
