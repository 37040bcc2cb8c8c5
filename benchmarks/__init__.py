"""Benchmarks: what the engine, the ingestion and the queue do on this machine. Run `python -m benchmarks NAME`."""
