"""Wyoming's own TCP port: each connection is a client like those of the WebSockets, but has no head and no key."""

from __future__ import annotations

import asyncio
import socket as sockets
import time
from typing import TYPE_CHECKING, cast

import transcriber
from transcriber.domain.errors import CannotStart
from transcriber.gateway.bridge import Bridge
from transcriber.gateway.dialects.wyoming import Program, Wyoming
from transcriber.gateway.socket import BUFFER_BYTES, LARGEST_BUFFER_BYTES

if TYPE_CHECKING:
    from transcriber.gateway.front import Entrance
    from transcriber.gateway.keys import Key
    from transcriber.gateway.parts import Parts
    from transcriber.gateway.surroundings import Surroundings

_PATH = "wyoming"  # in figures, where WebSockets have their path
_IDLE_SECS = 300.0  # without a byte: Home Assistant connects for each command, which lasts seconds
_LOST = 1006  # in figures, the code of a connection that ended without a word (RFC 6455)


class WyomingSocket(asyncio.Protocol):
    """The client's connection. `left` is called when it is over."""

    __slots__ = ("_close_code", "_dialect", "_door", "_heard_at", "_transport", "bridge")

    def __init__(self, door: WyomingDoor) -> None:
        self._door = door
        self._dialect = Wyoming(door.program)
        self._close_code = _LOST
        self._heard_at = time.monotonic()
        self.bridge: Bridge | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=BUFFER_BYTES)
        transport.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
        if (why := self._door.enter(self, self._dialect)) is not None:
            self._transport.write(self._dialect.refusal(why))
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        if self.bridge is not None:
            self.bridge.received(data)

    def connection_lost(self, _error: Exception | None) -> None:
        bridge, self.bridge = self.bridge, None
        if bridge is not None:
            bridge.closed()
            self._door.leave(self, self._close_code)

    def send(self, message: str | bytes, *, optional: bool = False) -> None:  # noqa: ARG002 - no event is
        """Write an event. A client that does not read is given up."""
        self._transport.write(message if isinstance(message, bytes) else message.encode())
        if self._transport.get_write_buffer_size() > LARGEST_BUFFER_BYTES:
            self._transport.abort()

    def close(self, code: int, reason: str = "") -> None:
        """Answer what the client still waits for, and close."""
        self._close_code = code
        self._transport.write(self._dialect.last_words(reason))
        self._transport.close()

    def pause(self) -> None:
        """Read no more from the client for now."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def tick(self, now: float) -> None:
        """About a second has passed."""
        if self.bridge is None:
            return
        if now - self._heard_at > _IDLE_SECS and self._transport.is_reading():
            self.bridge.close(1000, "idle")
            return
        self.bridge.tick(now)

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()


class WyomingDoor:
    """Listens, and lets clients in as long as there is room."""

    def __init__(self, parts: Parts, entrance: Entrance, shared: Surroundings, caller: Key) -> None:
        """`caller` pays for all of them, as nobody has a key here."""
        self._parts = parts
        self._entrance = entrance
        self._shared = shared
        self._caller = caller
        self.port = 0

    async def listen(self) -> asyncio.Server:
        """Open the port. Raises `CannotStart` when it is taken."""
        options = self._parts.options
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: WyomingSocket(self), options.wyoming_host, options.wyoming_port
            )
        except (OSError, UnicodeError) as error:
            where = f"GATEWAY_WYOMING_HOST={options.wyoming_host} GATEWAY_WYOMING_PORT={options.wyoming_port}"
            raise CannotStart(f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}") from error
        self.port = server.sockets[0].getsockname()[1]
        return server

    def enter(self, socket: WyomingSocket, dialect: Wyoming) -> str | None:
        """Let a client in. Returns why not, if there is no room."""
        most = self._parts.options.max_connections
        if self._shared.figures.connections >= most:
            return f"GATEWAY_MAX_CONNECTIONS={most} are open"
        socket.bridge = Bridge(dialect, socket, self._shared, self._caller, None)
        self._entrance.enter(socket, self._caller, _PATH)
        socket.bridge.opened()
        return None

    def leave(self, socket: WyomingSocket, code: int) -> None:
        """A client has left."""
        self._shared.figures.closed[code] += 1
        self._entrance.leave(socket)

    def program(self) -> Program:
        """What `describe` is answered with."""
        known = {worker.model: worker.multilingual for worker in self._parts.workers.all if worker.model}
        return Program(transcriber.__version__, dict(sorted(known.items())))
