"""What the gateway counts. Telemetry and the pages read it; nothing here is ever reset."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_REFUSES = 400  # and every status above it, as RFC 9110 says


@dataclass(slots=True)
class Figures:
    """Counts since the start. Seconds of audio are of all clients together."""

    max_connections: int = 0
    connections: int = 0  # WebSockets and TCP clients, open now
    opened: Counter[str] = field(default_factory=Counter)  # by path
    closed: Counter[int] = field(default_factory=Counter)  # by the code with which they ended
    refused: Counter[int] = field(default_factory=Counter)  # by status, before any upgrade
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # of HTTP, by path and status
    audio: float = 0.0  # seconds published
    lost: float = 0.0  # seconds that the gateway had to give up
    messages_in: int = 0
    messages_out: int = 0
    dropped: int = 0  # optional messages that a slow reader did not get
    slow: int = 0  # connections given up because their readers were too slow
    held: int = 0  # bytes of clients' long messages that are in memory now
    pauses: int = 0  # how often a client was not read for a while

    def refusals(self) -> Counter[int]:
        """How often each status was answered that refuses something, before an upgrade or in an answer of HTTP."""
        found = Counter(self.refused)
        for (_path, status), times in self.requests.items():
            if status >= _REFUSES:
                found[status] += times
        return found
