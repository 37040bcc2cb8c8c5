"""Benchmarks of the engine, the ingestion and the queue on this machine. Run `python -m benchmarks NAME`."""
