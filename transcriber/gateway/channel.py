"""One stream on NATS: publishes the sessions of a client's channel, and sorts what the workers say about them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from transcriber.gateway.dialects.dialect import Audio, End, Flush
from transcriber.gateway.sessions import WORKER_LOST, Session
from transcriber.protocol.outgoing import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from transcriber.broker.direct import DirectLine
    from transcriber.gateway.dialects.dialect import ForWorkers, Hearing
    from transcriber.gateway.lanes import Lane
    from transcriber.gateway.sessions import Identity

    Heard = Mapping[str, Any]

LOST = "given_up"  # the type of what only a channel says: [start, end) will not be transcribed, and why
_NOTHING = {"received": 0.0, "transcribed": 0.0, "silent": 0.0, "gap": {}, "pending": 0.0}
_PIECE_SECS = 1.0  # the longest chunk that is published; a client may send minutes in one message
_PIECE_BYTES = 256 * 1024  # and a quarter of the default of AUDIO_MAX_CHUNK_BYTES
_HEADERS_BYTES = 8192  # of a message, left to its header block
_QUIET_TICKS = 10  # seconds without audio, after which a worker hears that the client is there: a third of its patience
_SUSPECT_TICKS = 7  # seconds: more than the default of STATUS_INTERVAL_SECS, so that a worker that lives has spoken


class Channel:
    """A client's channel. The first of its sessions is heard; later ones wait until that one has ended.

    What is to be told to the client comes back as messages in the workers' words, and in those of `LOST`.
    """

    __slots__ = (
        "_ask",
        "_count",
        "_identity",
        "_line",
        "_most",
        "_quiet",
        "_sessions",
        "_subject",
        "lane",
        "subscription",
    )

    def __init__(self, line: DirectLine, identity: Identity, lane: Lane) -> None:
        """`lane`: where its next session goes."""
        self._line = line
        self._sessions: list[Session] = []
        self._count = 0
        self._quiet = 0  # ticks since the last chunk
        self._most = 0  # bytes of the longest chunk, as far as the server takes it
        self.lane = lane
        self.subscription = 0
        self._name(identity)

    def _name(self, identity: Identity) -> None:
        self._identity = identity
        self._subject = self.lane.subject(identity.stream)
        self._ask = self.lane.partitions is not None  # whether the next chunk asks if anybody is there

    @property
    def stream(self) -> str:
        """The name of the stream."""
        return self._identity.stream

    @property
    def session(self) -> Session | None:
        """The session that takes audio."""
        last = self._sessions[-1] if self._sessions else None
        return None if last is None or last.ending else last

    @property
    def sessions(self) -> Sequence[Session]:
        """Those that have not ended, the one that is heard first."""
        return self._sessions

    @property
    def unsettled(self) -> float:
        """Seconds published of which the fate is not known yet."""
        sessions = self._sessions
        return sessions[0].unsettled if len(sessions) == 1 else sum(session.unsettled for session in sessions)

    @property
    def expects(self) -> bool:
        """Whether a worker has still something to say."""
        return any(session.expects for session in self._sessions)

    # From the client

    def begin(self, hearing: Hearing, lane: Lane) -> None:
        """Open a session in a lane. Nothing is published before its first audio."""
        if lane is not self.lane:
            self.lane = lane
            self._name(self._identity)
        session = Session(self._next_id(), hearing, self._identity)
        self._most = min(_PIECE_BYTES, int(hearing.format.rate * _PIECE_SECS) * hearing.format.frame_bytes)
        if self._sessions:
            session.waiting = []
        self._sessions.append(session)

    @property
    def open(self) -> bool:
        """Whether a message goes out at once, and a worker may hear it."""
        return self._line.open and self.lane.serving

    def takes(self, size: int) -> bool:
        """Whether a session is open, and so many bytes are one chunk of it."""
        return self.session is not None and size <= self._most and size <= self._line.max_payload - _HEADERS_BYTES

    def pieces(self, pcm: bytes) -> Sequence[bytes]:
        """Cut what is too long for one chunk."""
        if (session := self.session) is None:
            return ()
        frame = session.hearing.format.frame_bytes
        step = frame * max(1, min(self._most, self._line.max_payload - _HEADERS_BYTES) // frame)
        if len(pcm) <= step:
            return (pcm,)
        return [pcm[start : start + step] for start in range(0, len(pcm), step)]

    def send(self, pcm: bytes) -> float:
        """Publish a chunk. Returns its seconds."""
        if (session := self.session) is None:
            return 0.0
        self._quiet = 0
        subject = self._subject
        if self._ask:
            self._ask, subject = False, self.lane.asking(self.stream)
        self._line.send(subject, session.block(), pcm)
        session.add(len(pcm))
        return session.seconds - session.chunk_start

    def flush(self) -> list[Heard]:
        """Publish a flush. Returns its answer if there was nothing to flush, or nobody is there who could."""
        if (session := self.session) is None:
            return []
        if not session.sent:
            return self.hear(self._said(session, "flushed", {"end": 0.0}))
        session.flushes += 1
        if not self.lane.serving:
            return self._restart(session)
        self._line.send(self._subject, session.block("flush"), b"")
        return []

    def end(self) -> list[Heard]:
        """Publish the session's end. Returns its answer if no worker knows the session, or none is there."""
        if (session := self.session) is None:
            return []
        session.ending = True
        if not session.sent:
            return self.hear(self._said(session, "ended", _NOTHING))
        if not self.lane.serving:
            return self._restart(session)
        self._line.send(self._subject, session.block("end"), b"")
        return []

    def keep_alive(self) -> None:
        """Tell the worker, if one knows the session, that the client is there."""
        if (session := self.session) is not None and session.sent:
            self._line.send(self._subject, session.block("keepalive"), b"")

    # From the workers

    def suspect(self) -> None:
        """A worker is gone, and nobody knows whose it was."""
        for session in self._sessions:
            session.suspicion = _SUSPECT_TICKS if session.expects else 0

    def tick(self) -> list[Heard]:
        """About a second has passed. Returns what to tell when nothing was heard of a suspected worker."""
        self._ask = self.lane.partitions is not None
        self._quiet += 1
        if self._quiet >= _QUIET_TICKS and self._line.open:
            self._quiet = 0
            self.keep_alive()
        said: list[Heard] = []
        for session in list(self._sessions):
            if session.suspicion:
                session.suspicion -= 1
                said += [] if session.suspicion else self._restart(session)
        return said

    def renew(self) -> list[Heard]:
        """No worker knows the sessions any more: give up what was with one, and go on under other ids."""
        said: list[Heard] = []
        for session in list(self._sessions):
            if session.sent:
                said += self._restart(session)
        return said

    def move(self, stream: str) -> list[Heard]:
        """Go on under another name, as nobody hears this one. Returns what to tell."""
        said = self.renew()
        self._name(replace(self._identity, stream=stream))
        return said

    def abandon(self, held: Iterable[ForWorkers], reason: str, *, answer: bool) -> list[Heard]:
        """Give everything up, and what is `held` back. Returns what to tell; with `answer`, also what was asked for."""
        if (last := self.session) is not None:
            for command in held:
                last.add(len(command.pcm) if isinstance(command, Audio) else 0)
                last.flushes += isinstance(command, Flush)
                last.ending |= isinstance(command, End)
        said: list[Heard] = []
        for session in list(self._sessions):
            said += self._lost(session, session.seconds, reason)
            said += self._answers(session) if answer else ()
        return said

    def _restart(self, session: Session) -> list[Heard]:
        """Give up what is not settled, answer what no worker will answer, and go on under another id."""
        session.suspicion = 0
        said = self._lost(session, session.seconds) + self._answers(session)
        if not session.ending:
            session.move(self._next_id())
        return said

    def _answers(self, session: Session) -> list[Heard]:
        """What a worker would say to the session's flushes and its end."""
        said: list[Heard] = []
        for _ in range(session.flushes):
            said += self.hear(self._said(session, "flushed", {"end": session.seconds}))
        if session.ending:
            said += self.hear(self._said(session, "ended", _NOTHING))
        return said

    def hear(self, message: Heard) -> list[Heard]:
        """Return what is to be told to the client now, in order."""
        session = self._of(message)
        if session is None:
            return []
        session.suspicion = 0
        kind = message["type"]
        if kind == "started" and session.begun:  # another worker has taken over, at the last chunk
            return self._lost(session, session.chunk_start)
        session.begun = True
        news = session.settle(message)
        if kind == "ended":
            if not session.ending:  # the worker leaves, and the client goes on
                return self._restart(session)
            news = [session.account(message)]
        if session.waiting is not None:
            session.waiting += news
            return []
        return news if kind != "ended" else [*news, *self._next()]

    def _next(self) -> list[Heard]:
        """The first session has ended. Return what was said about the next ones meanwhile."""
        self._sessions.pop(0)
        said: list[Heard] = []
        while self._sessions:
            said += self._sessions[0].waiting or ()
            self._sessions[0].waiting = None
            if not said or said[-1]["type"] != "ended":
                break
            self._sessions.pop(0)
        return said

    def _of(self, message: Heard) -> Session | None:
        name = str(message.get("session"))
        for session in self._sessions:
            if session.id == name:
                return session
            if name.startswith(f"{session.id}."):
                session.follow(name)
                return session
        if message.get("type") == "rejected" and not name and self._sessions:  # it had no session that could be read
            return self._sessions[0]
        return None

    def _lost(self, session: Session, end: float, reason: str = WORKER_LOST) -> list[Heard]:
        bounds = session.lose(end, reason)
        if bounds is None:
            return []
        return [self._said(session, LOST, {"start": bounds[0], "end": bounds[1], "reason": reason})]

    def _said(self, session: Session, kind: str, fields: Mapping[str, Any]) -> Heard:
        """What a worker would say."""
        return {"v": VERSION, "type": kind, "stream": self._identity.stream, "session": session.id, **fields}

    def _next_id(self) -> str:
        self._count += 1
        return str(self._count)
