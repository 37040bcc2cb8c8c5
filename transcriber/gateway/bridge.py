"""Connects one client's dialect with the workers: carries out its commands, and tells it what they say."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from transcriber.gateway.channel import Channel
from transcriber.gateway.dialects.dialect import Audio, Begin, Close, End, Flush, Keepalive, Send
from transcriber.gateway.sessions import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from transcriber.broker.direct import DirectLine
    from transcriber.gateway.dialects.dialect import Command, Dialect
    from transcriber.gateway.figures import Figures
    from transcriber.gateway.results import Results
    from transcriber.gateway.routes import Caller

log = logging.getLogger(__name__)

CREDIT_SECS = 20.0  # of unsettled audio in a channel: the default L_max, within which a worker settles what it has
AWAY_SECS = 10.0  # without NATS or a worker, until a client that waits for one is told
_PIECE_SECS = 1.0  # the longest chunk that is published; a client may send minutes in one message
_PIECE_BYTES = 256 * 1024  # and a quarter of the default of AUDIO_MAX_CHUNK_BYTES
_HEADERS_BYTES = 8192  # of a message, left to its header block
_QUIET_TICKS = 10  # seconds without audio, after which a worker hears that the client is there: a third of its patience

RESTARTING = 1012, "the gateway restarts; connect again"
_AWAY = 1013


class Outlet(Protocol):
    """The client's connection, as a bridge uses it."""

    def send(self, message: str | bytes, *, optional: bool) -> None: ...
    def close(self, code: int, reason: str) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Serving(Protocol):
    """Whether any worker is there."""

    @property
    def serving(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all bridges share. `gateway` is a part of every stream's name."""

    line: DirectLine
    results: Results
    workers: Serving
    figures: Figures
    gateway: str


class Bridge:
    """One client. Nothing here waits: what cannot be published now is held, and the client is not read meanwhile."""

    __slots__ = (
        "_away_since",
        "_busy",
        "_caller",
        "_channels",
        "_dialect",
        "_finishing",
        "_held",
        "_identity",
        "_news",
        "_outlet",
        "_over",
        "_paused",
        "_quiet",
        "_shared",
    )

    def __init__(
        self, dialect: Dialect, outlet: Outlet, shared: Surroundings, caller: Caller, traceparent: str | None
    ) -> None:
        stream = f"{caller.tenant}-{shared.gateway}-{secrets.token_hex(6)}"
        self._identity = Identity(stream=stream, tenant=caller.tenant, traceparent=traceparent)
        self._dialect = dialect
        self._outlet = outlet
        self._shared = shared
        self._caller = caller
        self._channels: dict[int, Channel] = {}
        # Lists, although they are taken from the front: an empty deque holds as much memory as all the rest here.
        self._held: list[Command] = []  # commands that wait, in order
        self._news: list[tuple[int, Mapping[str, Any]]] = []  # what is to be told to the dialect next
        self._busy = False  # whether the dialect is being told something
        self._paused = False
        self._finishing = False
        self._over = False
        self._quiet = 0  # ticks since the last chunk
        self._away_since: float | None = None

    @property
    def stream(self) -> str:
        """The name of the first channel's stream."""
        return self._identity.stream

    def opened(self) -> None:
        """The connection is open."""
        self._carry_out(self._dialect.opened())

    def received(self, message: str | bytes) -> None:
        """The client has sent a message."""
        if not self._over and not self._finishing:
            self._carry_out(self._dialect.received(message))

    def hear(self, number: int, message: Mapping[str, Any]) -> None:
        """A worker has said something about a channel's session."""
        if (channel := self._channels.get(number)) is None or self._over:
            return
        said = channel.hear(message, lambda start, end: self._lost(number, "worker_lost", start, end))
        self._news.extend((number, each) for each in said)
        self._carry_out(())
        self._go_on()

    def closed(self) -> None:
        """The client is gone: publish what is held, and end every session."""
        if self._over:
            return
        self._over = True
        if self._shared.line.up:
            for command in self._held:
                self._publish(command)
            for channel in self._channels.values():
                channel.end()
        self._held.clear()
        self._news.clear()
        for channel in self._channels.values():
            self._shared.results.ignore(channel)
        self._channels.clear()

    def fail(self) -> None:
        """A defect in the dialect: give up this client."""
        self.close(1011, "internal error")

    def close(self, code: int, reason: str) -> None:
        """End every session and close the connection."""
        if not self._over:
            self.closed()
            self._outlet.close(code, reason)

    def finish(self) -> None:
        """Take no more from the client. End every session, and close when all have ended."""
        if not self._over and not self._finishing:
            self._finishing = True
            self._carry_out([End(number) for number in self._channels])

    def tick(self, now: float) -> None:
        """About a second has passed."""
        if self._over:
            return
        self._quiet += 1
        if self._quiet >= _QUIET_TICKS and self._shared.line.open:
            self._quiet = 0
            for channel in self._channels.values():
                channel.keep_alive()
        self._go_on()
        if not self._gave_up(now):
            self._carry_out(self._dialect.tick(now))

    # From the client to the workers

    def _carry_out(self, commands: Iterable[Command]) -> None:
        """Carry out commands, and those by which the dialect answers what they bring about."""
        if self._busy:
            self._perform(commands)
            return
        self._busy = True
        try:
            self._perform(commands)
            while self._news and not self._over:
                number, message = self._news.pop(0)
                self._perform(self._dialect.heard(number, message))
        finally:
            self._busy = False
        if self._finishing and not any(channel.sessions for channel in self._channels.values()):
            self.close(*RESTARTING)

    def _perform(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if self._over:
                return
            match command:
                case Send(message, optional):
                    self._outlet.send(message, optional=optional)
                case Close(code, reason):
                    self.close(code, reason)
                case Audio():
                    for piece in self._pieces(command):
                        self._hand_on(piece)
                case _:
                    self._hand_on(command)

    def _hand_on(self, command: Command) -> None:
        """Publish now, or hold."""
        if not self._held and self._may_publish(command):
            self._publish(command)
            return
        self._held.append(command)
        if not self._paused:
            self._paused = True
            self._shared.figures.pauses += 1
            self._outlet.pause()

    def _go_on(self) -> None:
        """Publish what is held, as far as possible; read on when nothing is left."""
        while self._held and self._may_publish(self._held[0]):
            self._publish(self._held.pop(0))
        if self._paused and not self._held and not self._over:
            self._paused = False
            self._outlet.resume()
        if self._news:
            self._carry_out(())

    def _may_publish(self, command: Command) -> bool:
        shared = self._shared
        if not shared.line.open or not shared.workers.serving:
            return False
        if isinstance(command, Audio):
            channel = self._channels.get(command.channel)
            return channel is None or (channel.unsettled < CREDIT_SECS and self._caller.may_send)
        return True

    def _publish(self, command: Command) -> None:
        if isinstance(command, Begin):
            self._begin(command)
            return
        if (channel := self._channels.get(command.channel)) is None:  # type: ignore[union-attr] # Send and Close never come here
            return
        said = None
        match command:
            case Audio(pcm):
                self._quiet = 0
                channel.send(pcm)
                self._count(channel, len(pcm))
            case Flush():
                said = channel.flush()
            case End():
                said = channel.end()
            case Keepalive():
                channel.keep_alive()
        if said is not None:
            self._tell(command.channel, channel, said)  # type: ignore[union-attr]

    def _begin(self, command: Begin) -> None:
        number = command.channel
        if (channel := self._channels.get(number)) is None:
            suffix = f"-{number}" if number else ""
            identity = Identity(
                stream=f"{self._identity.stream}{suffix}",
                tenant=self._identity.tenant,
                traceparent=self._identity.traceparent,
            )
            channel = self._channels[number] = Channel(self._shared.line, identity)
            self._shared.results.listen(channel, self, number)
        elif (said := channel.end()) is not None:
            self._tell(number, channel, said)
        channel.begin(command.hearing)

    def _tell(self, number: int, channel: Channel, message: Mapping[str, Any]) -> None:
        """The gateway says what a worker would say, which may have to wait for an earlier session."""
        self._news.extend((number, each) for each in channel.hear(message, lambda _start, _end: None))

    def _count(self, channel: Channel, size: int) -> None:
        if (session := channel.session) is not None:
            seconds = size / session.hearing.format.frame_bytes / session.hearing.format.rate
            self._caller.sent(seconds)
            self._shared.figures.audio += seconds

    def _pieces(self, audio: Audio) -> Iterator[Audio]:
        """Cut what is too long for one chunk."""
        channel = self._channels.get(audio.channel)
        session = None if channel is None else channel.session
        if session is None:
            yield audio
            return
        frame = session.hearing.format.frame_bytes
        largest = min(_PIECE_BYTES, self._shared.line.max_payload - _HEADERS_BYTES)
        step = frame * max(1, min(int(session.hearing.format.rate * _PIECE_SECS), largest // frame))
        if len(audio.pcm) <= step:
            yield audio
            return
        for start in range(0, len(audio.pcm), step):
            yield Audio(audio.pcm[start : start + step], audio.channel)

    # What goes wrong

    def _lost(self, number: int, reason: str, start: float, end: float) -> None:
        """Tell the client that a stretch of its audio will not be transcribed."""
        if end > start:
            log.warning(
                "audio lost: %s", reason, extra={"stream": self.stream, "start": start, "end": end, "limited": True}
            )
            self._shared.figures.lost += end - start
            self._carry_out(self._dialect.refused(number, reason, start, end))

    def renew(self) -> None:
        """Workers are back, none of which knows this client's sessions."""
        for number, channel in list(self._channels.items()):
            channel.renew(lambda start, end, number=number: self._lost(number, "worker_lost", start, end))  # type: ignore[misc]
        self._go_on()

    def _gave_up(self, now: float) -> bool:
        """Close the connection if it waits for NATS or a worker and none comes."""
        shared = self._shared
        waits = bool(self._held) or any(channel.unsettled for channel in self._channels.values())
        if not waits or (shared.line.up and shared.workers.serving):
            self._away_since = None
            return False
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since < AWAY_SECS:
            return False
        reason = "no_workers" if shared.line.up else "nats_away"
        for number, channel in list(self._channels.items()):
            rest = sum(len(c.pcm) for c in self._held if isinstance(c, Audio) and c.channel == number)
            for session in channel.sessions:
                held = rest / session.hearing.format.frame_bytes / session.hearing.format.rate
                self._lost(number, reason, session.settled, session.seconds + held)
        self.close(_AWAY, reason)
        return True
