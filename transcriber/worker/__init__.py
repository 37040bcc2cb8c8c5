"""The bounded queue, and the one thread that owns the Whisper model."""
