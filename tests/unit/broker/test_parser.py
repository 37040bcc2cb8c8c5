"""The short parser reads what nats-py's parser reads, however the bytes are cut and whoever takes the messages."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from nats.protocol.parser import Parser

from transcriber.broker.parser import ShortParser

if TYPE_CHECKING:
    from transcriber.broker.parser import Taker

_TAKEN = 5  # subscriptions below this number have a taker


class _Client:
    """Notes what a parser calls, whichever way a message takes."""

    def __init__(self, *, takes: bool) -> None:
        self.said: list[Any] = []
        self._takes = takes

    def taker(self, sid: int) -> Taker | None:
        if not self._takes or sid >= _TAKEN:
            return None
        return lambda subject, headers, payload: self.said.append((sid, subject, headers, payload))

    async def gather(self) -> None:
        """Nothing needs to collect here."""

    async def _process_msg(self, sid: int, subject: bytes, _reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.said.append((sid, bytes(subject), headers or b"", data))

    async def _process_err(self, text: str) -> None:
        self.said.append(text)

    async def _process_ping(self) -> None:
        self.said.append("ping")

    async def _process_pong(self) -> None:
        self.said.append("pong")

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.said.append(info)


def _message(subject: bytes, sid: int, reply: bytes, headers: bytes | None, payload: bytes) -> bytes:
    to = b"%b %d %b" % (subject, sid, reply + b" " if reply else b"")
    if headers is None:
        return b"MSG %b%d\r\n%b\r\n" % (to, len(payload), payload)
    return b"HMSG %b%d %d\r\n%b%b\r\n" % (to, len(headers), len(headers) + len(payload), headers, payload)


_words = st.sampled_from([b"audio.a", b"a", b"$SRV.x", "audio.\u00e9".encode(), b"x\xff"])
_payloads = st.one_of(
    st.binary(max_size=20), st.sampled_from([b"\r\n", b"PING\r\n", b"MSG a 1 2\r\n", bytes(5000), b"x" * 40_000])
)
_messages = st.builds(
    _message,
    _words,
    st.integers(0, 2 * _TAKEN),
    st.sampled_from([b"", b"_INBOX.1", b"12"]),
    st.one_of(st.none(), st.sampled_from([b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0 503\r\n\r\n"])),
    _payloads,
)
_others = st.sampled_from(
    [
        b"PING\r\n",
        b"PONG\r\n",
        b"PING \r\n",
        b"+OK\r\n",
        b"-ERR 'Slow Consumer'\r\n",
        b'INFO {"max_payload": 5}\r\n',
    ]
)
_odd = st.sampled_from(
    [
        b"MSG  a 1  2\r\nab\r\n",
        b"MSG\ta\t1\t2\r\nab\r\n",
        b"MSG a\tb 1 2\r\nab\r\n",
        b"MSG a 1\n2\r\nab\r\n",
        b"MSG a 1 2 \r\nab\r\n",
        b"MSG a 1 r\n2\r\nab\r\n",
        b"MSG a +1 2\r\nab\r\n",
        b"MSG a x 2\r\nab\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 2\r\nabXYPING\r\n",
        b"HMSG a 1 9 5\r\nhello\r\n",
        b"HMSG a 1 0 2\r\nab\r\n",
        b"HMSG a 1 2\r\nab\r\n",
        b"HMSG a 7 1 2\r\nab\r\n",
        b"msg a 1 2\r\nab\r\n",
        b"INFO {\r\n",
        b"\r\n",
        b"MSG a 1 " + b"9" * 5000 + b"\r\n",
        b"M" * 5000 + b"\r\n",
    ]
)
_streams = st.lists(st.one_of(_messages, _messages, _others), max_size=12).map(b"".join)
_hostile = st.lists(st.one_of(_messages, _others, _odd, st.binary(max_size=9)), max_size=6).map(b"".join)
_cuts = st.lists(st.integers(0, 1_000_000), max_size=12)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def _read(parser: Parser, pieces: list[bytes]) -> Any:
    async def read() -> None:
        for piece in pieces:
            await parser.parse(piece)

    try:
        asyncio.run(read())
    except Exception as error:  # noqa: BLE001 - both parsers must fail in the same way
        return type(error)
    return bytes(parser.buf), parser.state


def _same(pieces: list[bytes]) -> list[Any]:
    theirs, ours = _Client(takes=False), _Client(takes=True)
    left = _read(Parser(theirs), pieces)
    assert _read(ShortParser(ours), pieces) == left
    assert ours.said == theirs.said
    return ours.said


@given(_streams, _cuts)
def test_parser_reads_any_cut_as_nats_py_does(data: bytes, cuts: list[int]) -> None:
    """Messages, pings, errors and server news come in the same order, with the same rest."""
    _same(_pieces(data, cuts))


@given(_hostile, _cuts)
def test_parser_fails_where_nats_py_fails(data: bytes, cuts: list[int]) -> None:
    """Odd white space, broken lines and junk are read, or refused, as nats-py does it."""
    _same(_pieces(data, cuts))


@given(st.lists(_messages, min_size=1, max_size=3).map(b"".join))
def test_parser_reads_single_bytes_as_nats_py_does(data: bytes) -> None:
    """The worst cut of all."""
    data = data[:400]
    _same([data[place : place + 1] for place in range(len(data))])


def test_parser_reads_a_long_message_in_many_parts() -> None:
    """As the largest that a server takes comes from a socket."""
    message = _message(b"audio.a", 1, b"", b"NATS/1.0\r\n\r\n", bytes(2**20))
    said = _same([message[start : start + 32_768] for start in range(0, len(message), 32_768)])
    assert said == [(1, b"audio.a", b"NATS/1.0\r\n\r\n", bytes(2**20))]
