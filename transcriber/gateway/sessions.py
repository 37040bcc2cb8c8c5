"""One session of a stream on its way to the workers: its header block, its offsets, and what is settled. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transcriber.broker.direct import header_block
from transcriber.protocol import headers as names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.gateway.dialects.dialect import Hearing

_TOLD = 8  # finals and gaps of which the bounds are known: the next worker may not know those of some seconds
# So long a worker keeps a session of which it hears nothing. It hears of each one in a third of that.
TIMEOUT_SECS = 30
WORKER_LOST = "worker_lost"  # why audio is lost that was with a worker that is gone
_EVENTS = {kind: f"\r\n{names.EVENT}: {kind}".encode() for kind in ("flush", "end", "keepalive")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A sender: the name of the stream, the tenant, and the trace that it belongs to."""

    stream: str
    tenant: str
    traceparent: str | None = None


class Session:
    """A session. Positions are in sample frames of the client's format; seconds count from the session's start."""

    __slots__ = (
        "_base",
        "_block",
        "_gaps",
        "_identity",
        "_moved",
        "_rate",
        "_told",
        "_transcribed",
        "begun",
        "chunk_start",
        "ending",
        "flushes",
        "hearing",
        "id",
        "sent",
        "settled",
        "suspicion",
        "waiting",
    )

    def __init__(self, name: str, hearing: Hearing, identity: Identity) -> None:
        self.hearing = hearing
        self.sent = 0  # sample frames published
        self.settled = 0.0  # seconds of which the fate is known
        self.chunk_start = 0.0  # seconds: where the last chunk begins
        self.flushes = 0  # flushes without an answer
        self.ending = False  # whether its end was published, or there was nothing to end
        self.waiting: list[Mapping[str, Any]] | None = None  # what was heard while an earlier session goes on
        self.suspicion = 0  # ticks until its worker counts as gone; 0: it is not suspected
        self._identity = identity
        self._rate = hearing.format.rate
        self._transcribed = 0.0  # seconds
        self._gaps: dict[str, float] | None = None  # seconds by reason
        self._told: list[tuple[float, float]] = []  # bounds of the last finals and gaps, in seconds
        self._base = 0.0  # seconds: where the present worker began
        self._moved = False  # whether more than one worker has had it
        self._name(name)

    def _name(self, name: str) -> None:
        self.id = name
        self.begun = False  # whether a worker has said so
        self._block = header_block(_headers(name, self.hearing, self._identity)) + f"{names.OFFSET}: ".encode()

    def follow(self, name: str) -> None:
        """A worker had ended the session, and has begun another one with the last chunk (P-16)."""
        self.id = name
        self._base, self._moved = self.chunk_start, True

    def move(self, name: str) -> None:
        """Go on under another id, with another worker."""
        self._base, self._moved = self.seconds, True
        self._name(name)

    @property
    def seconds(self) -> float:
        """Seconds published."""
        return self.sent / self._rate

    @property
    def unsettled(self) -> float:
        """Seconds published of which the fate is not known yet."""
        return max(0.0, self.sent / self._rate - self.settled)

    @property
    def expects(self) -> bool:
        """Whether a worker has still something to say about it."""
        return self.sent > 0 and (self.ending or self.flushes > 0 or self.unsettled > 0)

    def add(self, size: int) -> None:
        """A chunk of `size` bytes was published."""
        self.chunk_start = self.sent / self._rate
        self.sent += size // self.hearing.format.frame_bytes

    def block(self, event: str | None = None) -> bytes:
        """The header block of the next message."""
        return b"%b%d%b\r\n\r\n" % (self._block, self.sent, b"" if event is None else _EVENTS[event])

    def lose(self, end: float, reason: str) -> tuple[float, float] | None:
        """Give up what is not settled up to `end`. Returns its bounds; None if there is nothing."""
        start = self.settled
        if end <= start:
            return None
        self.settled = end
        self._gap(reason, end - start)
        self._base, self._moved = end, True
        return start, end

    def settle(self, message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Learn from what a worker says up to where the fate of the audio is known. Returns what is new of it."""
        kind, known, news = message["type"], 0.0, [message]
        if kind in {"final", "gap", "flushed"}:
            known = _number(message, "end")
            if kind != "flushed":
                news = self._tell(message, _number(message, "start"), known)
            else:
                self.flushes = max(0, self.flushes - 1)
        elif kind in {"status", "ended"}:
            known = self._base + _number(message, "received") - _number(message, "pending")
        self.settled = max(self.settled, known)
        return news

    def _tell(self, message: Mapping[str, Any], start: float, end: float) -> list[Mapping[str, Any]]:
        """Count what is told of [start, end) for the first time. Returns a final as it is, and a gap without the rest.

        A worker that died may have told more than its last position says, which the next one cannot know.
        """
        pieces = [(start, end)]
        for first, last in self._told:
            pieces = [
                piece
                for low, high in pieces
                for piece in ((low, min(high, first)), (max(low, last), high))
                if piece[0] < piece[1]
            ]
        self._moved |= pieces != [(start, end)]
        self._told = [*self._told[1 - _TOLD :], (start, end)]
        seconds = sum(high - low for low, high in pieces)
        if message["type"] == "final":
            self._transcribed += seconds
            return [message]
        self._gap(str(message.get("reason")), seconds)
        return [{**message, "start": low, "end": high} for low, high in pieces]

    def account(self, ended: Mapping[str, Any]) -> Mapping[str, Any]:
        """What `ended` says, for the whole session even if several workers have had it."""
        if not self._moved:
            return ended
        gaps = self._gaps or {}
        silent = max(0.0, self.seconds - self._transcribed - sum(gaps.values()))
        whole = {"received": self.seconds, "transcribed": self._transcribed, "silent": silent, "gap": gaps}
        return {**ended, **whole, "pending": 0.0}

    def _gap(self, reason: str, seconds: float) -> None:
        self._gaps = self._gaps or {}
        self._gaps[reason] = self._gaps.get(reason, 0.0) + seconds


def _number(message: Mapping[str, Any], name: str) -> float:
    value = message.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _headers(name: str, hearing: Hearing, identity: Identity) -> dict[str, str]:
    pcm = hearing.format
    headers = {
        names.ENCODING: pcm.encoding.value,
        names.RATE: str(pcm.rate),
        names.CHANNELS: str(pcm.channels),
        names.SESSION: name,
        names.TENANT: identity.tenant,
        names.TIMEOUT: str(TIMEOUT_SECS),
    }
    optional = {
        names.LANGUAGE: hearing.language,
        names.PROMPT: hearing.prompt,
        names.TASK: "translate" if hearing.translate else None,
        names.PARTIALS: None if hearing.partials else "off",
        names.NOTIFY: "speech" if hearing.speech else None,
        names.ENDPOINTING: None if hearing.endpointing_ms is None else str(hearing.endpointing_ms),
        names.TRACEPARENT: identity.traceparent,
    }
    return headers | {header: _one_line(value) for header, value in optional.items() if value is not None}


def _one_line(value: str) -> str:
    """The value as a header must be: a client may write anything into a prompt."""
    return " ".join(value.split())
