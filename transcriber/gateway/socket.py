"""One WebSocket: frames in and out by `websockets`' codec, without a task or a queue."""

from __future__ import annotations

import asyncio
import contextlib
import socket as sockets
import time
from typing import TYPE_CHECKING, cast

from websockets.exceptions import ProtocolError
from websockets.frames import Opcode
from websockets.protocol import State

from transcriber.gateway.frames import next_binary

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.frames import Frame
    from websockets.server import ServerProtocol

    from transcriber.gateway.bridge import Bridge
    from transcriber.gateway.figures import Figures

BUFFER_BYTES = 256 * 1024  # that a client has not read: from here on it gets no optional messages
LARGEST_BUFFER_BYTES = 1024 * 1024  # from here on it is too slow
# What the system holds of a client that is not read, doubled by Linux. The client's pings wait until this and what its
# own system holds are read, and clients give up after 20 s. 128 KiB are 4 s of 16 kHz s16. Such a window lets 192 kB/s,
# which is stereo at 48 kHz, through a network with half a second between question and answer.
_RECEIVE_BYTES = 64 * 1024
# So much of all clients' messages may be in memory, whole or not. Those up to _LONG_BYTES do not count.
# It is twice what 10,000 idle connections take.
HELD_BYTES = 256 * 1024 * 1024
_LONG_BYTES = 64 * 1024  # 2 s of 16 kHz s16
_BLOCKED_SECS = 10.0  # or after so long above BUFFER_BYTES
_PING_SECS = 20.0  # without a byte from the client. Proxies close a connection after 60 s
_DEAD_SECS = 60.0  # without a byte, although three pings asked for one
_CLOSE_SECS = 5.0  # for the client's half of the closing handshake
_TCP_CLOSE = 7  # a connection's state in Linux's tcp_info, after a reset
_LONGEST_REASON = 123  # bytes: what a close frame has room for
_FULL = 1013, "overloaded: too many long messages at a time; send shorter ones"
_SLOW = 1008, "slow_consumer: you read more slowly than text is made"


class Socket(asyncio.Protocol):
    """The client's connection, from the upgrade on. `left` is called when it is over."""

    __slots__ = (
        "_blocked_since",
        "_bridge",
        "_closing",
        "_codec",
        "_figures",
        "_heard_at",
        "_held",
        "_left",
        "_parts",
        "_pinged_at",
        "_text",
        "_transport",
        "close_code",
    )

    def __init__(
        self, transport: asyncio.Transport, codec: ServerProtocol, figures: Figures, left: Callable[[Socket], object]
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._figures = figures
        self._left = left
        self._bridge: Bridge | None = None
        self._parts: list[bytes] | None = None  # of a message that comes in fragments
        self._held = 0  # bytes of a long message that count
        self._text = False  # whether that is text
        self._closing: asyncio.TimerHandle | None = None
        self.close_code = 1006  # with which it ended
        self._blocked_since: float | None = None
        self._heard_at = self._pinged_at = time.monotonic()
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        with contextlib.suppress(OSError):  # it may be closed already
            transport.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, _RECEIVE_BYTES)

    @property
    def bridge(self) -> Bridge | None:
        """What was connected."""
        return self._bridge

    def connect(self, bridge: Bridge) -> None:
        """Connect with the workers; the client may be heard from now on."""
        self._bridge = bridge
        bridge.opened()
        self._flush()

    # From the client

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._pinged_at = time.monotonic()
        codec = self._codec
        place = 0
        while not self._held and (found := next_binary(codec, data, place)) is not None:
            payload, place = found
            if self._bridge is not None:
                self._figures.messages_in += 1
                self._bridge.received(payload)
        if place == len(data):
            return
        told = codec.state is not State.OPEN  # that it is closed, and perhaps why
        codec.receive_data(data[place:])
        for event in codec.events_received():
            frame = cast("Frame", event)
            self._take(frame)
            frame.data = b""  # the codec holds its last frame, which for an idle client is most of its memory
        if (size := len(codec.reader.buffer) + (codec.current_size or 0)) > _LONG_BYTES:
            self._hold(size)
        elif self._held and self._transport.is_reading():
            self._hold(0)
        self._flush()
        if self._transport.get_write_buffer_size() > LARGEST_BUFFER_BYTES:  # of pongs: it asks and does not read
            if told:
                self._transport.abort()
            else:
                self._give_up()

    def eof_received(self) -> None:
        self._codec.receive_eof()
        self._flush()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        received = self._codec.close_rcvd
        self.close_code = received.code if received is not None else self.close_code
        self._figures.closed[self.close_code] += 1
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.closed()
        self._hold(0)
        self._left(self)

    def _take(self, frame: Frame) -> None:
        opcode, bridge = frame.opcode, self._bridge
        if opcode is Opcode.CLOSE:
            if bridge is not None:
                bridge.closed()
            return
        if opcode in {Opcode.PING, Opcode.PONG} or bridge is None:
            return
        data = self._joined(frame)
        if data is None:
            return
        self._figures.messages_in += 1
        try:
            message = data.decode() if self._text else data
        except UnicodeDecodeError:
            bridge.close(1007, "text that is not UTF-8")
            return
        bridge.received(message)
        if len(data) > _LONG_BYTES and not self._transport.is_reading():  # most of it waits
            self._hold(len(data))

    def _hold(self, size: int) -> None:
        """Count what is in memory of this client's message, and close if that is too much for all clients together."""
        size = size if size > _LONG_BYTES else 0
        self._figures.held += size - self._held
        self._held = size
        if size and self._figures.held > HELD_BYTES and self._bridge is not None:
            self._bridge.close(*_FULL)

    def _joined(self, frame: Frame) -> bytes | None:
        """The message that a frame completes; None when more frames of it must come."""
        data = bytes(frame.data)
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        if frame.fin and self._parts is None:
            return data
        if self._parts is None:
            self._parts = []
        if data:  # of empty ones there may be any number
            self._parts.append(data)
        if not frame.fin:
            return None
        data, self._parts = b"".join(self._parts), None
        return data

    # To the client

    def send(self, message: str | bytes, *, optional: bool = False) -> None:
        """Send a message. An optional one is dropped while the client reads too slowly."""
        if self._codec.state is not State.OPEN:
            return
        if optional and self._blocked_since is not None:
            self._figures.dropped += 1
            return
        self._figures.messages_out += 1
        if isinstance(message, str):
            self._codec.send_text(message.encode())
        else:
            self._codec.send_binary(message)
        self._flush()
        if self._transport.get_write_buffer_size() > LARGEST_BUFFER_BYTES:
            self._give_up()

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake, which may take some seconds."""
        if self._codec.state is not State.OPEN:
            return
        self.close_code = code
        try:
            self._codec.send_close(code, _short(reason))
        except ProtocolError:
            self._codec.send_close(1011, "internal error")
        self._transport.resume_reading()  # the client's half must be read, whatever comes before it
        self._flush()

    def pause(self) -> None:
        """Read no more from the client for now."""
        if self._codec.state is State.OPEN:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._hold(0)
        self._transport.resume_reading()
        self._heard_at = self._pinged_at = time.monotonic()  # it may have been pinging unheard

    def pause_writing(self) -> None:
        self._blocked_since = time.monotonic()

    def resume_writing(self) -> None:
        self._blocked_since = None

    def tick(self, now: float) -> None:
        """About a second has passed."""
        if self._bridge is None or self._codec.state is not State.OPEN:
            return
        if self._blocked_since is not None and now - self._blocked_since > _BLOCKED_SECS:
            self._give_up()
            return
        if self._transport.is_reading():
            if now - self._heard_at > _DEAD_SECS:
                self._transport.abort()
                return
            if now - self._pinged_at > _PING_SECS:
                self._pinged_at = now
                self._codec.send_ping(b"")
        elif _was_reset(self._transport):
            self._transport.abort()
            return
        self._bridge.tick(now)
        self._flush()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    def _give_up(self) -> None:
        self._figures.slow += 1
        if self._bridge is not None:
            self._bridge.close(*_SLOW)

    def _flush(self) -> None:
        """Write what the codec has to send, and wait for the end when it expects one."""
        for data in self._codec.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()
        if self._closing is None and self._codec.close_expected():
            self._closing = asyncio.get_running_loop().call_later(_CLOSE_SECS, self._transport.abort)


def _was_reset(transport: asyncio.Transport) -> bool:
    """Whether the client is gone; asyncio does not notice while it does not read. Linux alone tells."""
    with contextlib.suppress(AttributeError, OSError):
        info: bytes = transport.get_extra_info("socket").getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, 1)
        return info[0] == _TCP_CLOSE
    return False


def _short(reason: str) -> str:
    """A reason that fits into a close frame."""
    return reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
