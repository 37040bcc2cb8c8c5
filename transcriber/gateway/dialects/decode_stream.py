"""A WebSocket of this project's own: raw PCM in, one JSON object a message out. Pure.

Parameters are in the address: `/v2/decode/stream/{model}?sample_rate=16000&encoding=pcm_s16le&channels=1&language=en`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from transcriber.domain import languages
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.channel import Channel, words
from transcriber.gateway.dialects.dialect import Close, Command, Hearing, Keepalive, Send
from transcriber.gateway.native import json_dumps, json_loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_DEFAULTS = {"sample_rate": "16000", "encoding": Encoding.S16LE, "channels": "1", "language": "", "queue_status": "0"}
_RATES, _CHANNELS = (8_000, 192_000), (1, 8)  # as the wire protocol allows (P-3)
_FLAGS = {"0": False, "false": False, "1": True, "true": True}
_DONE, _UNSUPPORTED = 1000, 1003  # RFC 6455, section 7.4.1
_TIMES = "start", "end"


class ParameterError(ValueError):
    """A parameter of the address has a value that is not allowed."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}={value[:64]!r} is not allowed: {allowed}")
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """How busy the workers are. `estimated_wait`: seconds until the least busy one would begin with new speech."""

    pending: int  # windows that wait or run
    capacity: int  # windows that may
    estimated_wait: float | None
    rtf: float | None
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the address asks for."""

    hearing: Hearing
    queue_status: bool = False


def read_wishes(query: Mapping[str, list[str]]) -> Wishes:
    """Read the address's parameters. Unknown ones are ignored, of several the last counts. Raises `ParameterError`."""
    given = {name: (query.get(name) or [default])[-1].strip() for name, default in _DEFAULTS.items()}
    if given["encoding"] not in list(Encoding):
        raise ParameterError("encoding", given["encoding"], ", ".join(Encoding))
    language = languages.code(given["language"]) if given["language"] else None
    if given["language"] and language is None:
        raise ParameterError("language", given["language"], languages.ALLOWED)
    queue_status = _FLAGS.get(given["queue_status"].lower())
    if queue_status is None:
        raise ParameterError("queue_status", given["queue_status"], "0 or 1")
    rate = _whole("sample_rate", given["sample_rate"], *_RATES)
    sound = AudioFormat(Encoding(given["encoding"]), rate, _whole("channels", given["channels"], *_CHANNELS))
    return Wishes(hearing=Hearing(format=sound, language=language), queue_status=queue_status)


def _whole(name: str, value: str, low: int, high: int) -> int:
    if not (value.isascii() and value.isdecimal() and low <= int(value[:9]) <= high):
        raise ParameterError(name, value, f"a whole number from {low} to {high}")
    return int(value)


class DecodeStream:
    """One connection. `queue` reads how busy the workers are; None: this client did not ask for that."""

    max_message = 2**20  # bytes: 32 s at 16 kHz

    def __init__(self, hearing: Hearing, queue: Callable[[], QueueStatus] | None = None) -> None:
        self._channel = Channel(hearing)
        self._queue = queue
        self._leaving = False
        self._totals: dict[str, Any] = {"received": 0.0, "transcribed": 0.0, "silent": 0.0, "gap": {}}

    def opened(self) -> Iterator[Command]:
        yield from self._queue_status()

    def received(self, message: str | bytes) -> Iterator[Command]:
        if self._leaving:
            return
        if isinstance(message, bytes):
            yield from self._channel.audio(message)
            return
        match _kind(message):
            case "flush":
                yield from self._channel.flush()
            case "keepalive" if self._channel.open:
                yield Keepalive()
            case "keepalive":
                pass
            case "end":
                self._leaving = True
                yield from self._channel.end() if self._channel.open else self._left()
            case _:
                yield _send({"type": "error", "message": 'a text message is {"type": "flush"}, "keepalive" or "end"'})

    def passes(self, pcm: bytes) -> bool:
        return not self._leaving and self._channel.passes(pcm)

    def heard(self, channel: int, message: Mapping[str, Any]) -> Iterator[Command]:  # noqa: ARG002 - there is one
        match message["type"]:
            case "partial":
                text = {"transcription": message["text"], "stable": message["stable"], "type": "partial"}
                yield _send(text | self._result(message), optional=True)
            case "final":
                text = {"transcription": message["text"], "type": "final"}
                yield _send(text | self._result(message) | {"words": [self._shifted(w) for w in words(message)]})
            case "gap":
                yield from self.refused(0, message["reason"], message["start"], message["end"])
            case "flushed":
                yield _send({"transcription": "", "type": "flushed", "end": self._channel.at(message["end"])})
            case "ended":
                self._channel.ended()
                self._add(message)
                if self._leaving:
                    yield from self._left()
            case "rejected":
                yield _send({"type": "error", "message": message["detail"]})
                yield Close(_UNSUPPORTED, message["reason"])

    def refused(self, channel: int, reason: str, start: float, end: float) -> Iterator[Command]:  # noqa: ARG002
        at = self._channel.at
        yield _send({"transcription": "", "type": "gap", "start": at(start), "end": at(end), "reason": reason})

    def tick(self, now: float) -> Iterator[Command]:  # noqa: ARG002 - once a second is what is wished
        yield from self._queue_status()

    def _left(self) -> Iterator[Command]:
        """Tell the account of all sessions, and that nothing comes after it."""
        yield _send({"transcription": "", "type": "ended", "start": 0.0, "end": self._channel.heard, **self._totals})
        yield Close(_DONE)

    def _queue_status(self) -> Iterator[Command]:
        if self._queue is not None:
            yield _send({"type": "queue_status", **asdict(self._queue())}, optional=True)

    def _result(self, message: Mapping[str, Any]) -> dict[str, Any]:
        named = ("confidence", "language", "model")
        return self._shifted({name: message[name] for name in (*_TIMES, *named)})

    def _shifted(self, timed: Mapping[str, Any]) -> dict[str, Any]:
        return {**timed, **{name: self._channel.at(timed[name]) for name in _TIMES}}

    def _add(self, account: Mapping[str, Any]) -> None:
        """Add a session's account to the connection's."""
        for fate in ("received", "transcribed", "silent"):
            self._totals[fate] += account[fate]
        for reason, seconds in account["gap"].items():
            self._totals["gap"][reason] = self._totals["gap"].get(reason, 0.0) + seconds


def _send(body: Mapping[str, Any], *, optional: bool = False) -> Send:
    return Send(json_dumps(body), optional)


def _kind(message: str) -> object:
    try:
        body = json_loads(message)
    except (ValueError, RecursionError):
        return None
    return body.get("type") if isinstance(body, dict) else None
