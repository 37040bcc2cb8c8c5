"""Reads the protocol of NATS: messages for takers the short way, all else as nats-py does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from nats.aio.client import DEFAULT_BUFFER_SIZE
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, Parser

if TYPE_CHECKING:
    from collections.abc import Callable

    Taker = Callable[[bytes, bytes, bytes], None]  # subject, header block or nothing, payload

_END = b"\r\n"
# The line before a message, as every nats-server writes it. Numbers of this length are always read as such.
_LINE = re.compile(rb"MSG (\S+) (\d{1,15}) (?:(\S+) )?(\d{1,15})\r\n")
_LINE_WITH_HEADERS = re.compile(rb"HMSG (\S+) (\d{1,15}) (?:(\S+) )?(\d{1,15}) (\d{1,15})\r\n")
_H = ord("H")


class Receiver(Protocol):
    """Gets what is read, besides what nats-py's parser calls."""

    def taker(self, sid: int) -> Taker | None:
        """Return what takes a subscription's messages at once; None: nats-py does."""
        ...

    async def gather(self) -> None:
        """Everything that has arrived was read."""
        ...


class ShortParser(Parser):
    """nats-py's parser, with a short way for messages that somebody takes at once.

    nats-py tries up to seven patterns on each message, and moves all that follows it in its buffer three times. Here
    one pattern is tried, and nothing is moved. What does not fit goes to nats-py's parser. Its state is used for that,
    so each may go on where the other one stopped.
    """

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(receiver)
        self._taker = receiver.taker
        self._gather = receiver.gather

    async def parse(self, data: bytes = b"") -> None:
        """Read what has arrived, and then let more collect."""
        if self.buf or self.state == AWAITING_MSG_PAYLOAD:
            self.buf += data
            if self.state == AWAITING_CONTROL_LINE or len(self.buf) >= self.needed + len(_END):
                await self._read(bytes(self.buf))  # a long message is not looked at before all of it is there
        else:
            await self._read(data)
        if len(data) < DEFAULT_BUFFER_SIZE:  # otherwise more data is waiting already
            await self._gather()

    async def _read(self, data: bytes) -> None:
        place = self._split(data) if self.state == AWAITING_MSG_PAYLOAD else 0
        place, known = self._short(data, place)
        self.buf = bytearray(data[place:])
        if not known:
            await super().parse()

    def _split(self, data: bytes) -> int:
        """Read the rest of a message of which the line was read before. Returns its end; 0 if nats-py must go on."""
        if (take := self._taker(self.msg_arg["sid"])) is None:
            return 0
        self.state = AWAITING_CONTROL_LINE
        head, self.header_needed = self.header_needed, 0
        take(bytes(self.msg_arg["subject"]), data[:head], data[head : self.needed])
        return self.needed + len(_END)

    def _short(self, data: bytes, place: int) -> tuple[int, bool]:
        """Read messages for takers. Returns up to where, and False if nats-py must go on there."""
        total = len(data)
        while self.state == AWAITING_CONTROL_LINE and place < total:
            headed = data[place] == _H
            found = (_LINE_WITH_HEADERS if headed else _LINE).match(data, place)
            if found is None:
                return place, data.find(_END, place) < 0  # the rest of the line has not come yet
            subject, sid, reply, *head, size = found.groups()
            if (take := self._taker(int(sid))) is None:
                return place, False
            start = found.end()
            begin, end = start + int(head[0]) if headed else start, start + int(size)
            if end + len(_END) > total:
                self.msg_arg = {"subject": subject, "sid": int(sid), "reply": reply or b""}
                self.header_needed, self.needed, self.state = begin - start, end - start, AWAITING_MSG_PAYLOAD
                return start, True
            place = end + len(_END)
            take(subject, data[start:begin], data[begin:end])
        return place, self.state == AWAITING_CONTROL_LINE
