"""Shares the streams among many daemons: partitions, their owners, and how they change hands."""
