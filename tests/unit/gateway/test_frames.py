"""The short way of audio's frames: it takes only what the codec would take, and takes it in the same way."""

from __future__ import annotations

import itertools
import struct
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from transcriber.gateway.frames import next_binary

_LARGEST = 70_000  # bytes of a message


def _codec() -> ServerProtocol:
    return ServerProtocol(state=State.OPEN, max_size=_LARGEST)


def _frame(first: int, payload: bytes, mask: bytes = b"\1\2\3\4") -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


_payloads = st.one_of(st.binary(max_size=200), st.sampled_from([bytes(125), bytes(126), bytes(127), b"ab" * 1600]))
_firsts = st.sampled_from([0x82, 0x82, 0x82, 0x82, 0x81, 0x80, 0x00, 0x01, 0x02, 0x89, 0x8A, 0x88, 0xC2, 0x83])
_frames = st.builds(_frame, _firsts, _payloads, st.binary(min_size=4, max_size=4))
_junk = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.sampled_from([b"\x82\x05hello", b"\x82\xff" + bytes(131), b"\x82\xfe\0\5" + bytes(9), b"\x82\x7e" + bytes(130)]),
)
_streams = st.lists(st.one_of(_frames, _frames, _frames, _junk), max_size=8)


def _events(codec: ServerProtocol) -> list[Any]:
    found = []
    for frame in codec.events_received():
        assert isinstance(frame, Frame)
        found.append((frame.opcode, bytes(frame.data), frame.fin))
    return found


def _left(codec: ServerProtocol) -> Any:
    return codec.state, codec.close_code, codec.current_size, b"".join(codec.data_to_send())


@given(_streams, st.lists(st.integers(0, 4000), max_size=5), st.booleans())
@example([_frame(0x82, b"ab")], [2], False)
@example([_frame(0x02, b"ab"), _frame(0x82, b"cd")], [], True)
def test_short_way_reads_what_the_codec_reads(frames: list[bytes], cuts: list[int], by_frame: bool) -> None:
    """Any frames, whole or cut anywhere, give the same messages, answers and state as with the codec alone."""
    data = b"".join(frames)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    ours, theirs = _codec(), _codec()
    for piece in frames if by_frame else pieces:
        theirs.receive_data(piece)
        said, place = [], 0
        while (found := next_binary(ours, piece, place)) is not None:
            payload, place = found
            said.append((Opcode.BINARY, payload, True))
        if place < len(piece):
            ours.receive_data(piece[place:])
        assert said + _events(ours) == _events(theirs)
        assert _left(ours) == _left(theirs)


def test_short_way_is_taken_for_audio() -> None:
    """Else a change within websockets would cost CPU, unseen."""
    codec = _codec()
    for number in range(3):
        assert next_binary(codec, _frame(0x82, b"\1\2" * 1600)) == (b"\1\2" * 1600, 3208)
        codec.receive_data(_frame(0x89, b"%d" % number))  # a ping


def test_short_way_is_not_taken_within_a_frame() -> None:
    """The codec has read a head and waits, with nothing in its buffer. What follows only looks like a frame."""
    codec, inner = _codec(), _frame(0x82, b"abc")
    codec.receive_data(_frame(0x82, inner, bytes(4))[:6])
    assert next_binary(codec, inner) is None
    codec.receive_data(inner)
    assert _events(codec) == [(Opcode.BINARY, inner, True)]


def test_short_way_is_not_taken_for_too_much() -> None:
    """A message over the dialect's limit, and one when the connection is closing, are the codec's."""
    codec = ServerProtocol(state=State.OPEN, max_size=9)
    assert next_binary(codec, _frame(0x82, bytes(9))) == (bytes(9), 15)
    assert next_binary(codec, _frame(0x82, bytes(10))) is None
    codec.send_close(1000)
    assert next_binary(codec, _frame(0x82, bytes(9))) is None
