"""Connects one client's dialect with the workers: carries out its commands, and tells it what they say."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from transcriber.gateway.channel import LOST, Channel
from transcriber.gateway.dialects.dialect import Audio, Begin, Close, End, Flush, Keepalive, Send
from transcriber.gateway.sessions import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from transcriber.gateway.dialects.dialect import Command, Dialect, ForWorkers
    from transcriber.gateway.lanes import Lane
    from transcriber.gateway.routes import Caller
    from transcriber.gateway.surroundings import Outlet, Surroundings

log = logging.getLogger(__name__)

CREDIT_SECS = 20.0  # of unsettled audio in a channel: the default L_max, within which a worker settles what it has
AWAY_SECS = 10.0  # without NATS or a worker, until a client that waits for one is told
RESTARTING = 1012, "the gateway restarts; connect again"
_AWAY, _OVERLOADED = 1013, "overloaded"
_NO_ROOM = "streams"  # why a worker rejects a stream that is one too many (P-4)


class Bridge:
    """One client. Nothing here waits: what cannot be published now is held, and the client is not read meanwhile."""

    __slots__ = (
        "_away_since",
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
        "_shared",
    )

    def __init__(
        self, dialect: Dialect, outlet: Outlet, shared: Surroundings, caller: Caller, traceparent: str | None
    ) -> None:
        self._identity = Identity(stream=shared.new_name(caller.tenant), tenant=caller.tenant, traceparent=traceparent)
        self._dialect = dialect
        self._outlet = outlet
        self._shared = shared
        self._caller = caller
        self._channels: list[Channel] = []  # those of a client have numbers from 0 on
        # Lists, although they are taken from the front: an empty deque holds as much memory as all the rest here.
        self._held: list[ForWorkers] = []  # commands that wait, in order
        self._news: list[tuple[int, Mapping[str, Any]]] = []  # what is to be told to the dialect next
        self._paused = self._finishing = self._over = False
        self._away_since: float | None = None

    @property
    def stream(self) -> str:
        """The name of the first channel's stream."""
        return self._identity.stream

    def opened(self) -> None:
        """The connection is open."""
        self._carry_out(self._dialect.opened)

    def received(self, message: str | bytes) -> None:
        """The client has sent a message."""
        if not self._finishing and not (isinstance(message, bytes) and self._passed(message)):
            self._carry_out(self._dialect.received, message)

    def hear(self, number: int, message: Mapping[str, Any]) -> None:
        """A worker has said something about a channel's session."""
        if message["type"] == "rejected" and message.get("reason") == _NO_ROOM:
            self._leave(_OVERLOADED)
        elif (channel := self._channel(number)) is not None:
            self._tell(number, channel.hear(message))
            self._carry_out(tuple)
            self.go_on()

    def closed(self) -> None:
        """The client is gone: publish what is held, and end every session."""
        if self._over:
            return
        self._over = True
        if self._shared.line.up:
            for command in self._held:
                self._publish(command)
            for channel in self._channels:
                channel.end()
        self._held.clear()
        self._news.clear()
        for channel in self._channels:
            self._shared.results.ignore(channel)
        self._channels.clear()

    def close(self, code: int, reason: str) -> None:
        """End every session and close the connection."""
        if not self._over:
            self.closed()
            self._outlet.close(code, reason)

    def finish(self) -> None:
        """Take no more from the client. End every session, and close when all have ended."""
        if not self._over and not self._finishing:
            self._finishing = True
            self._carry_out(lambda: [End(number) for number in range(len(self._channels))])

    def tick(self, now: float) -> None:
        """About a second has passed."""
        if self._over:
            return
        for number, channel in enumerate(self._channels):
            self._tell(number, channel.tick())
        self.go_on()
        if not self._gave_up(now):
            self._carry_out(self._dialect.tick, now)

    def _channel(self, number: int) -> Channel | None:
        """None before it begins: that is held, or has not come."""
        return self._channels[number] if number < len(self._channels) else None

    # From the client to the workers

    def _carry_out(self, call: Callable[..., Iterable[Command]], *arguments: Any) -> None:  # noqa: ANN401 - the call's own
        """Carry out the commands that a call returns, and those by which the dialect answers what they bring about.

        A defect in the dialect costs this client its connection, and nothing else.
        """
        if self._over:
            return
        try:
            self._perform(call(*arguments))
            while self._news and not self._over:
                number, message = self._news.pop(0)
                self._perform(self._told(number, message))
        except Exception:
            log.exception("a client's protocol failed", extra={"name_of_stream": self.stream, "limited": True})
            self.close(1011, "internal error")
        if self._finishing and not any(channel.sessions for channel in self._channels):
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
                case Audio(pcm, number):
                    channel = self._channel(number)
                    for piece in (pcm,) if channel is None else channel.pieces(pcm):
                        self._hand_on(command if piece is pcm else Audio(piece, number))
                case _:
                    self._hand_on(command)

    def _passed(self, pcm: bytes) -> bool:
        """Publish a chunk that needs nothing else, as most do. Commands would cost as much as the rest of its way."""
        if self._over or self._held or len(self._channels) != 1:
            return False
        channel = self._channels[0]
        passes = channel.takes(len(pcm)) and self._may_send(channel) and self._dialect.passes(pcm)
        if passes:
            self._send(channel, pcm)
        return passes

    def _hand_on(self, command: ForWorkers) -> None:
        """Publish now, or hold."""
        if not self._held and self._may_publish(command):
            self._publish(command)
            return
        self._held.append(command)
        if not self._shared.line.open:
            self._shared.line.wait(self)
        if not self._paused:
            self._paused = True
            self._shared.figures.pauses += 1
            self._outlet.pause()

    def go_on(self) -> None:
        """Publish what is held, as far as possible; read on when nothing is left."""
        while self._held and self._may_publish(self._held[0]):
            self._publish(self._held.pop(0))
        if self._held and not self._shared.line.open:
            self._shared.line.wait(self)
        if self._paused and not self._held and not self._over:
            self._paused = False
            self._outlet.resume()
        if self._news:
            self._carry_out(tuple)

    def _may_publish(self, command: ForWorkers) -> bool:
        """Whether it may go out. A lane without workers takes no audio; what is asked there is answered at once."""
        if isinstance(command, Audio) and (channel := self._channel(command.channel)) is not None:
            return self._may_send(channel)
        if isinstance(command, Begin) and not self._shared.lanes.of(command.hearing.model).serving:
            return False
        return self._shared.line.open

    def _may_send(self, channel: Channel) -> bool:
        return channel.open and channel.unsettled < CREDIT_SECS and self._caller.may_send

    def _publish(self, command: ForWorkers) -> None:
        if isinstance(command, Begin):
            self._begin(command)
        elif (channel := self._channel(command.channel)) is not None:
            match command:
                case Audio(pcm):
                    for piece in channel.pieces(pcm):  # one, unless it was held before its session began
                        self._send(channel, piece)
                case Flush(number):
                    self._tell(number, channel.flush())
                case End(number):
                    self._tell(number, channel.end())
                case Keepalive():
                    channel.keep_alive()

    def _send(self, channel: Channel, pcm: bytes) -> None:
        seconds = channel.send(pcm)
        self._caller.sent(seconds)
        self._shared.figures.audio += seconds

    def _begin(self, command: Begin) -> None:
        number, lane = command.channel, self._shared.lanes.of(command.hearing.model)
        if not self._channels and lane.group and not lane.room:
            self._leave(_OVERLOADED)
            return
        if (channel := self._channel(number)) is None:
            stream = f"{self.stream}-{number}" if number else self.stream
            channel = Channel(self._shared.line, replace(self._identity, stream=stream), lane)
            self._channels.append(channel)
            self._shared.results.listen(channel, self, number)
        else:
            self._tell(number, channel.end())
        channel.begin(command.hearing, lane)

    # From the workers to the client

    def _tell(self, number: int, said: Iterable[Mapping[str, Any]]) -> None:
        """Note what is to be told to the dialect when the present commands are done."""
        self._news.extend((number, message) for message in said)

    def _told(self, number: int, message: Mapping[str, Any]) -> Iterable[Command]:
        """Tell the dialect; returns its commands."""
        if message["type"] != LOST:
            return self._dialect.heard(number, message)
        start, end, reason = message["start"], message["end"], message["reason"]
        self._shared.note_loss(self.stream, reason, start, end)
        return self._dialect.refused(number, reason, start, end)

    # What goes wrong

    def suspect(self) -> None:
        """A worker is gone, and perhaps it was the one of this client."""
        for channel in self._channels:
            channel.suspect()

    def deserted(self, number: int) -> None:
        """Nobody hears a channel: its owner in the fleet is gone. Under another name it has another owner, at once."""
        if (channel := self._channel(number)) is None:
            return
        if (name := self._shared.another_name(channel.lane, self._caller.tenant, number)) is not None:
            self._tell(number, self._shared.results.move(channel, name))
            self.go_on()

    def renew(self, back: Container[Lane]) -> None:
        """Workers are back in these lanes, none of which knows this client's sessions."""
        for number, channel in enumerate(self._channels):
            self._tell(number, channel.renew() if channel.lane in back else ())
        self.go_on()

    def _gave_up(self, now: float) -> bool:
        """Close the connection if it waits for NATS or a worker and none comes."""
        shared = self._shared
        waits = [channel.lane for channel in self._channels if self._held or channel.expects]
        waits += [shared.lanes.of(first.hearing.model) for first in self._held[:1] if isinstance(first, Begin)]
        if not waits or (shared.line.up and all(lane.serving for lane in waits)):
            self._away_since = None
            return False
        self._away_since = now if self._away_since is None else self._away_since
        if now - self._away_since < AWAY_SECS:
            return False
        self._leave("no_workers" if self._shared.line.up else "nats_away")
        return True

    def _leave(self, reason: str) -> None:
        """Tell the client that nobody transcribes what it has sent, answer it, and tell that it may come back later."""
        for number, channel in enumerate(self._channels):
            held = [command for command in self._held if command.channel == number]
            self._tell(number, channel.abandon(held, reason, answer=reason != _OVERLOADED))
        self._held.clear()
        self._carry_out(tuple)
        self.close(_AWAY, reason)
