"""One stream on NATS: publishes the sessions of a client's channel, and sorts what the workers say about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transcriber.gateway.sessions import Session
from transcriber.protocol import incoming
from transcriber.protocol.outgoing import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from transcriber.broker.direct import DirectLine
    from transcriber.gateway.dialects.dialect import Hearing
    from transcriber.gateway.sessions import Identity

    Heard = Mapping[str, Any]
    Lost = Callable[[float, float], None]  # seconds of the session that no worker will settle

_NOTHING = {"received": 0.0, "transcribed": 0.0, "silent": 0.0, "gap": {}, "pending": 0.0}


class Channel:
    """A client's channel. The first of its sessions is heard; later ones wait until that one has ended."""

    __slots__ = ("_count", "_identity", "_line", "_sessions", "_subject", "subscription")

    def __init__(self, line: DirectLine, identity: Identity) -> None:
        self._line = line
        self._identity = identity
        self._subject = f"{incoming.AUDIO}.{identity.stream}".encode()
        self._sessions: list[Session] = []
        self._count = 0
        self.subscription = 0

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
    def sessions(self) -> Iterable[Session]:
        """Those that have not ended, the one that is heard first."""
        return self._sessions

    @property
    def unsettled(self) -> float:
        """Seconds published of which the fate is not known yet."""
        return sum(session.unsettled for session in self._sessions)

    def begin(self, hearing: Hearing) -> None:
        """Open a session. Nothing is published before its first audio."""
        session = Session(self._next_id(), hearing, self._identity)
        if self._sessions:
            session.waiting = []
        self._sessions.append(session)

    def send(self, pcm: bytes) -> None:
        """Publish a chunk."""
        if (session := self.session) is not None:
            self._line.send(self._subject, session.block(), pcm)
            session.add(len(pcm))

    def flush(self) -> Heard | None:
        """Publish a flush. Returns its answer if there was nothing to flush."""
        if (session := self.session) is None:
            return None
        if not session.sent:
            return self._said(session, "flushed", {"end": 0.0})
        self._line.send(self._subject, session.block("flush"), b"")
        return None

    def end(self) -> Heard | None:
        """Publish the session's end. Returns its answer if no worker knows the session."""
        if (session := self.session) is None:
            return None
        session.ending = True
        if not session.sent:
            return self._said(session, "ended", _NOTHING)
        self._line.send(self._subject, session.block("end"), b"")
        return None

    def keep_alive(self) -> None:
        """Tell the worker, if one knows the session, that the client is there."""
        if (session := self.session) is not None and session.sent:
            self._line.send(self._subject, session.block("keepalive"), b"")

    def renew(self, lost: Lost) -> None:
        """Go on under another session id, as no worker knows the session any more. Its seconds count on."""
        for session in self._sessions:
            if session.sent and not session.ending:
                session.rename(self._next_id())
            lost(session.settled, session.seconds)
            session.settled = session.seconds

    def hear(self, message: Heard, lost: Lost) -> list[Heard]:
        """Return what is to be told to the client now, in order."""
        session = self._of(message)
        if session is None:
            return []
        kind = message["type"]
        if kind == "started" and session.begun:  # another worker has taken over
            if session.chunk_start > session.settled:
                lost(session.settled, session.chunk_start)
                session.settled = session.chunk_start
            return []
        session.begun = True
        session.settle(message)
        if kind == "ended" and not session.ending:  # the worker leaves, and the client goes on
            if session.unsettled:
                lost(session.settled, session.seconds)
                session.settled = session.seconds
            session.rename(self._next_id())
            return []
        if session.waiting is not None:
            session.waiting.append(message)
            return []
        return [message] if kind != "ended" else [message, *self._next()]

    def _next(self) -> list[Heard]:
        """The first session has ended. Return what was said about the next one meanwhile."""
        self._sessions.pop(0)
        said: list[Heard] = []
        while self._sessions:
            session = self._sessions[0]
            said += session.waiting or ()
            session.waiting = None
            if not said or said[-1]["type"] != "ended":
                break
            self._sessions.pop(0)
        return said

    def _of(self, message: Heard) -> Session | None:
        name = message.get("session")
        for session in self._sessions:
            if session.id == name:
                return session
        if message.get("type") == "rejected" and not name and self._sessions:  # it had no session that could be read
            return self._sessions[0]
        return None

    def _said(self, session: Session, kind: str, fields: Mapping[str, Any]) -> Heard:
        """What a worker would say."""
        return {"v": VERSION, "type": kind, "stream": self._identity.stream, "session": session.id, **fields}

    def _next_id(self) -> str:
        self._count += 1
        return str(self._count)
