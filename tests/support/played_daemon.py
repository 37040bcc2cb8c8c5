"""A daemon's side of the wire protocol with made-up text: answers a dialect's commands in the order that is promised.

What is spoken is decided by the test. Each window has words of its own, so that a text tells where it was.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from daemon_says import ended, final, flushed, gap, partial, speech

from transcriber.gateway.dialects.dialect import Audio, Begin, Command, Dialect, End, Flush

Message = dict[str, Any]


@dataclass
class _Session:
    rate: float  # bytes of a second
    speech: bool
    partials: bool
    base: float  # where it begins in the channel's audio, in seconds
    head: float = 0.0
    settled: float = 0.0  # what is before it is in no window to come
    open: float | None = None  # where the open window begins
    words: list[str] = field(default_factory=list)  # of the open window


class PlayedDaemon:
    """All channels of one connection. `said` and `lost`: what its clients must learn, by channel, in order."""

    def __init__(self) -> None:
        self.out: deque[tuple[int, Message]] = deque()
        self.said: dict[int, list[str]] = {}
        self.lost: dict[int, list[tuple[float, float, str]]] = {}
        self.lost_words: set[str] = set()
        self._sessions: dict[int, _Session] = {}
        self._sent: dict[int, float] = {}
        self._words = itertools.count(1)

    def take(self, command: Command) -> None:
        """Carry out a command, except those for the client."""
        match command:
            case Begin(hearing, channel):
                if channel in self._sessions:
                    self.take(End(channel))
                shape = hearing.format
                rate = shape.frame_bytes * shape.rate
                base = self._sent.setdefault(channel, 0.0)
                self._sessions[channel] = _Session(rate, hearing.speech, hearing.partials, base)
            case Audio(pcm, channel):
                session = self._sessions[channel]
                session.head += len(pcm) / session.rate
                self._sent[channel] += len(pcm) / session.rate
            case Flush(channel):
                self.close(channel, "flush")
                self._publish(channel, flushed(self._sessions[channel].head))
            case End(channel):
                self.close(channel, "end")
                self._publish(channel, ended(self._sessions.pop(channel).head))

    def speak(self, channel: int, words: int) -> None:
        """Somebody says so many words, in a window that is open or opens now."""
        session = self._sessions.get(channel)
        if session is None or session.head <= session.settled:
            return
        if session.open is None:
            session.open = max(session.head - 0.1, session.settled)
            if session.speech:
                self._publish(channel, speech(session.open))
        session.words += [f"w{next(self._words)}" for _ in range(words)]
        if session.partials and session.words:
            text = " ".join(session.words)
            self._publish(channel, partial(f"{text} perhaps", text, session.open))

    def close(self, channel: int, why: str, gap_reason: str = "") -> None:
        """The open window closes. `gap_reason`: its text is lost."""
        session = self._sessions.get(channel)
        if session is None:
            return
        session.settled = session.head
        if session.open is None:
            return
        start, text = session.open, " ".join(session.words)
        session.open, session.words = None, []
        if session.speech:
            self._publish(channel, speech(start, session.head, why))
        if gap_reason:
            self.lost.setdefault(channel, []).append((session.base + start, session.base + session.head, gap_reason))
            self.lost_words |= set(text.split())
            self._publish(channel, gap(start, session.head, gap_reason))
        else:
            self.said.setdefault(channel, []).append(text)
            self._publish(channel, {**final(text, start), "end": session.head, "closed": why})

    def text(self, channel: int = 0) -> str:
        return " ".join(text for text in self.said.get(channel, []) if text)

    def _publish(self, channel: int, message: Message) -> None:
        self.out.append((channel, message))


class Talk:
    """A client and a played daemon, with a dialect between them. `got`: all commands so far."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.daemon = PlayedDaemon()
        self.got: list[Command] = []
        self._now = 0.0
        self._carry_out(dialect.opened())

    def send(self, *messages: str | bytes) -> None:
        for message in messages:
            self._carry_out(self.dialect.received(message))

    def deliver(self) -> None:
        """Hand over what the daemon has published."""
        while self.daemon.out:
            channel, message = self.daemon.out.popleft()
            self._carry_out(self.dialect.heard(channel, message))

    def tick(self) -> None:
        self._carry_out(self.dialect.tick(self._now))
        self._now += 1.0

    def speech(self, action: str, channel: int, words: int) -> None:
        """Do one of `speak`, `pause`, `length` and `gap`."""
        if action == "speak":
            self.daemon.speak(channel, words)
        elif action == "gap":
            self.daemon.close(channel, "pause", "queue_full")
        else:
            self.daemon.close(channel, action)

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self.daemon.take(command)
            self.got.append(command)
