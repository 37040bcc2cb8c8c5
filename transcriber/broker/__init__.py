"""Talks to NATS: the connection, the sources of audio, the publisher, stored transcripts, and requests."""
