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
        if self._whole(data) and not self._short():
            await super().parse()
        if len(data) < DEFAULT_BUFFER_SIZE:  # otherwise more data is waiting already
            await self._gather()

    def _whole(self, data: bytes) -> bool:
        """Add to what waits. Returns whether that may be read now; a long message is not looked at in between."""
        self.buf += data
        return self.state == AWAITING_CONTROL_LINE or len(self.buf) >= self.needed + len(_END)

    def _short(self) -> bool:
        """Read messages for takers. Returns False where nats-py's parser must go on."""
        data, position = bytes(self.buf), 0
        try:
            if self.state == AWAITING_MSG_PAYLOAD:
                if (take := self._taker(self.msg_arg["sid"])) is None:
                    return False
                self.state = AWAITING_CONTROL_LINE
                head, self.header_needed = self.header_needed, 0
                position = self.needed + len(_END)
                take(bytes(self.msg_arg["subject"]), data[:head], data[head : self.needed])
            while True:
                pattern = _LINE_WITH_HEADERS if data[position : position + 1] == b"H" else _LINE
                if (found := pattern.match(data, position)) is None:
                    return data.find(_END, position) < 0  # the rest of the line has not come yet
                head, size = (int(found[4]), int(found[5])) if pattern is _LINE_WITH_HEADERS else (0, int(found[4]))
                begin = found.end()
                end = begin + size
                if (take := self._taker(int(found[2]))) is None:
                    return False
                if end + len(_END) > len(data):
                    self._await(found, head, size)
                    position = begin
                    return True
                position = end + len(_END)
                take(found[1], data[begin : begin + head], data[begin + head : end])
        finally:
            del self.buf[:position]

    def _await(self, found: re.Match[bytes], head: int, size: int) -> None:
        """A message's line was read, and the rest of it has not come yet."""
        self.msg_arg = {"subject": found[1], "sid": int(found[2]), "reply": found[3] or b""}
        self.header_needed, self.needed = head, size
        self.state = AWAITING_MSG_PAYLOAD
