"""Limits of sessions."""

from __future__ import annotations

from dataclasses import dataclass, field

from transcriber.audio.stream import StreamOptions


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Limits: a number of streams, and timeouts in seconds without a message."""

    stream: StreamOptions = field(default_factory=StreamOptions)
    max_streams: int = 1000
    stream_timeout: float = 5.0
    session_timeout: float = 300.0
