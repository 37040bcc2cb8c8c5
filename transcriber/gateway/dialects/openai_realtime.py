"""OpenAI's Realtime API, `/v1/realtime`: transcription sessions, in the present shape and the beta's. Pure.

Source: openai 3.57.0, `types/realtime` and `types/beta/realtime`. Clients join deltas, so a delta is what is new of the
text that will not change. `error` is only for broken input, because LiveKit's client gives up on it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transcriber.gateway.dialects.channel import Channel
from transcriber.gateway.dialects.dialect import Close, Command, Send
from transcriber.gateway.dialects.pace import Pace
from transcriber.gateway.dialects.realtime_items import Items, speech_started, speech_stopped
from transcriber.gateway.dialects.realtime_session import Invalid, SessionOptions, is_flat
from transcriber.gateway.native import base64_decode, json_dumps, json_loads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from transcriber.gateway.dialects.realtime_items import Event, Item

_LEAST = 0.1  # seconds of audio that a commit needs, as at OpenAI
_TRY_AGAIN = 1013  # of the registry of RFC 6455
_TYPES = (
    "session.update, transcription_session.update, input_audio_buffer.append, input_audio_buffer.commit, "
    "input_audio_buffer.clear"
)


@dataclass(slots=True)
class _Session:
    """A session of the daemon. `since`: where it begins in the client's audio; `flushes`: items to be complete."""

    channel: Channel
    since: float = 0.0
    flushes: list[Item] = field(default_factory=list)

    @property
    def head(self) -> float:
        return self.since + self.channel.heard

    def at(self, seconds: float) -> float:
        return self.since + self.channel.at(seconds)


class Realtime:
    """One connection. `beta`: the client speaks the beta's shape from the beginning."""

    max_message = (
        15 * 2**20 // 3 * 4 + 2**16
    )  # bytes: OpenAI allows appends of 15 MiB of audio, which is base64 in JSON

    def __init__(self, request_id: str, *, model: str | None = None, beta: bool = False) -> None:
        self._options = SessionOptions(model=model)
        self._id = f"sess_{request_id}"
        self._numbers = itertools.count(1)
        self._items = Items(request_id)
        self._items.beta = beta
        # The last one takes the audio. Those before it have been asked to end, and settle first. A list, although it is
        # taken from the front: an empty deque holds more memory than an idle connection needs for all else.
        self._sessions = [_Session(Channel(self._options.hearing))]
        self._pace = Pace()
        self._rejections: frozenset[str] = frozenset()  # reasons that were told

    @property
    def _head(self) -> float:
        """Seconds of audio so far."""
        return self._sessions[-1].head

    def opened(self) -> Iterator[Command]:
        yield self._send(self._configuration("created", old=self._items.beta))

    def received(self, message: str | bytes) -> Iterator[Command]:
        event = _parsed(message)
        try:
            yield from self._take(event)
        except Invalid as error:
            told = {"type": "invalid_request_error", "code": error.code, "message": error.message}
            about = {"param": error.param, "event_id": _text(event.get("event_id"))}
            yield self._send({"type": "error", "error": {**told, **about}})

    def passes(self, pcm: bytes) -> bool:  # noqa: ARG002 - audio comes in JSON
        return False

    def heard(self, channel: int, message: Mapping[str, Any]) -> Iterator[Command]:  # noqa: ARG002 - there is one
        session = self._sessions[0]
        match message["type"]:
            case "partial":
                start, end = session.at(message["start"]), session.at(message["end"])
                if (item := self._items.of(start, end)) is not None:
                    yield from self._tell(self._items.hear_so_far(item, start, message["stable"]))
            case "final":
                yield from self._final(message, session.at(message["start"]), session.at(message["end"]))
            case "gap":
                yield from self._lost(message["reason"], session.at(message["start"]), session.at(message["end"]))
            case "speech" if self._options.vad:
                yield from self._speech(message, session)
            case "flushed" if session.flushes:
                yield from self._complete(session.flushes.pop(0))
            case "ended":
                yield from self._ended(session)
            case "rejected":
                yield from self._rejected(message["reason"], message["detail"])

    def refused(self, channel: int, reason: str, start: float, end: float) -> Iterator[Command]:  # noqa: ARG002
        session = self._sessions[0]
        yield from self._lost(reason, session.at(start), session.at(end))

    def tick(self, now: float) -> Iterator[Command]:
        yield from self._silence(self._pace.tick(now, self._head))

    def _take(self, event: Mapping[str, Any]) -> Iterator[Command]:
        match event:
            case {"type": "input_audio_buffer.append"}:
                yield from self._append(event.get("audio"))
            case {"type": "input_audio_buffer.commit"}:
                yield from self._commit()
            case {"type": "input_audio_buffer.clear"}:
                yield from self._clear()
            case {"type": "session.update" | "transcription_session.update" as kind, "session": {} as session}:
                yield from self._configure(session)
                old = kind.startswith("transcription")
                self._items.beta = old or is_flat(session) or (self._items.beta and "audio" not in session)
                yield self._send(self._configuration("updated", old=old))
            case {"type": str() as kind}:
                raise Invalid(f"type={kind!r:.80} is not allowed here: {_TYPES}", param="type")
            case _:
                raise Invalid("an event is a JSON object with a type", code="invalid_event", param="type")

    def _configure(self, session: Mapping[str, Any]) -> Iterator[Command]:
        before, self._options = self._options.hearing, self._options.updated(session)
        if self._options.hearing == before:
            return
        newest = self._sessions[-1]
        if newest.channel.open:
            yield from newest.channel.end()
        else:
            self._sessions.pop()
        self._sessions.append(_Session(Channel(self._options.hearing), newest.head))

    def _append(self, audio: object) -> Iterator[Command]:
        try:
            pcm = base64_decode(audio if isinstance(audio, str) else b"?")
        except ValueError:
            raise Invalid("audio is not base64 as in RFC 4648, section 4", param="audio") from None
        if self._items.open is None and not self._options.vad and pcm:
            self._items.begin(self._head)
        yield from self._sessions[-1].channel.audio(pcm)
        yield from self._silence(self._pace.certain(self._head))

    def _commit(self) -> Iterator[Command]:
        waiting = self._head - self._items.boundary
        if waiting < _LEAST:
            message = f"the buffer holds {waiting * 1000:.0f} ms of audio; a commit needs at least {_LEAST * 1000:.0f}"
            raise Invalid(message, code="input_audio_buffer_commit_empty")
        item = self._items.open or self._items.begin(self._items.boundary)
        yield from self._tell(self._items.commit(item, self._head))
        yield from self._flush(item)

    def _clear(self) -> Iterator[Command]:
        if self._head > self._items.boundary:
            item = self._items.open or self._items.begin(self._items.boundary)
            self._items.discard(item, self._head)
            yield from self._flush(item)
        yield self._send({"type": "input_audio_buffer.cleared"})

    def _flush(self, item: Item) -> Iterator[Command]:
        """Have a committed item completed when all its audio is settled."""
        item.flushing = True
        for session in reversed(self._sessions):
            if session.channel.open:
                session.flushes.append(item)
                if session is self._sessions[-1]:  # else it ends, which settles as much
                    yield from session.channel.flush()
                return
        yield from self._complete(item)

    def _final(self, final: Mapping[str, Any], start: float, end: float) -> Iterator[Command]:
        item = self._items.of(start, end)
        if item is None:
            item = self._items.begin(start)
            if self._options.vad:
                yield self._send(speech_started(item))
        item.unsettled = {window for window in item.unsettled if window >= end}
        item.language = final.get("language") or item.language
        item.last = max(end, item.last or end)
        yield from self._tell(self._items.hear(item, final["text"]))
        if self._options.vad and item.end is None and final.get("closed") != "length":
            yield from self._stop(item, end)
        yield from self._complete_settled()

    def _lost(self, reason: str, start: float, end: float) -> Iterator[Command]:
        item = self._items.of(start, end)
        if item is None:
            yield from self._tell(self._items.fail([(start, end, reason)]))
            return
        self._items.lose(item, start, end, reason)
        yield from self._complete_settled()

    def _speech(self, speech: Mapping[str, Any], session: _Session) -> Iterator[Command]:
        start, item = session.at(speech["start"]), self._items.open
        if speech.get("end") is None:
            if item is not None and item.last is not None and start > item.last:
                yield from self._stop(item, item.last)
                item = None
            if item is None:
                item = self._items.begin(start)
                yield self._send(speech_started(item))
            item.speaking = True
            return
        end = session.at(speech["end"])
        item = self._items.of(start, end)
        if item is None:
            return
        item.speaking, item.last = False, end
        item.unsettled.add(start)
        if item.end is None and speech.get("closed") != "length":
            yield from self._stop(item, end)

    def _stop(self, item: Item, end: float) -> Iterator[Command]:
        """Nobody speaks any more: commit the item."""
        yield self._send(speech_stopped(item, end))
        yield from self._tell(self._items.commit(item, end))
        yield from self._complete_settled()

    def _silence(self, until: float) -> Iterator[Command]:
        """Stop an item whose last window was cut by length, and after which nobody has spoken."""
        item = self._items.open
        if item is None or not self._options.vad or item.speaking or item.last is None:
            return
        if until - item.last >= self._options.silence_ms / 1000:
            yield from self._stop(item, item.last)

    def _ended(self, session: _Session) -> Iterator[Command]:
        session.channel.ended()
        if self._options.vad and (item := self._items.open) is not None:
            yield from self._stop(item, item.last or session.head)
        for item in (*session.flushes, *self._items.settled(all_of_them=True)):
            yield from self._complete(item)
        session.flushes.clear()
        if len(self._sessions) > 1:
            self._sessions.pop(0)

    def _rejected(self, reason: str, detail: str) -> Iterator[Command]:
        if reason == "streams":
            yield Close(_TRY_AGAIN, "no worker takes another stream")
        elif reason not in self._rejections:  # the audio that follows is rejected for the same reason
            self._rejections |= {reason}
            error = {"type": "invalid_request_error", "code": reason, "message": detail, "param": "audio"}
            yield self._send({"type": "error", "error": {**error, "event_id": None}})

    def _complete_settled(self) -> Iterator[Command]:
        for item in self._items.settled():
            yield from self._complete(item)

    def _complete(self, item: Item) -> Iterator[Command]:
        yield from self._tell(self._items.complete(item))

    def _configuration(self, what: str, *, old: bool) -> Event:
        """What is in effect. `old`: under the name that the beta had for it."""
        session = self._options.flat(self._id) if self._items.beta else self._options.nested(self._id)
        return {"type": f"{'transcription_' if old else ''}session.{what}", "session": session}

    def _tell(self, events: Iterable[Event]) -> Iterator[Command]:
        for event in events:
            yield self._send(event)

    def _send(self, event: Event) -> Send:
        numbered = {"event_id": f"event_{self._id}_{next(self._numbers)}", **event}
        return Send(json_dumps(numbered))


def _parsed(message: str | bytes) -> Mapping[str, Any]:
    """The client's event; an empty one if it is no JSON object."""
    try:
        event = json_loads(message) if isinstance(message, str) else None
    except (ValueError, RecursionError):
        event = None
    return event if isinstance(event, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
