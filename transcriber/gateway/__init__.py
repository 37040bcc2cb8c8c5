"""Speaks the protocols of existing speech clients, and maps them to subjects on NATS."""
