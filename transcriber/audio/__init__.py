"""Turns PCM into windows of speech, and accounts for every sample. Pure: no clock, threads, environment or I/O."""
