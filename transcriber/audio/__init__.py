"""From PCM bytes to windows of speech, and the account of every sample. Pure: no clock, threads, environment or I/O."""
