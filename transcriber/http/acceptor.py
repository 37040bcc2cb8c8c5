"""Accepts connections that are few and short, and keeps some file descriptors in reserve for them.

asyncio's own server cannot be used. When no descriptor is free, it logs a hundred lines at every attempt to accept, and
accepts no connection until one is free. A probe needs a new connection each time, so it would fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import re
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from transcriber.domain.errors import CannotStart

log = logging.getLogger(__name__)

HOSTS = re.compile(r"[^\s,]+(\s*,\s*[^\s,]+)*")
_ANSWER_SECS = 5.0  # from accepting a connection to the end of its answer; a probe needs milliseconds
_PLACES = 64  # connections that wait for a request or an answer; fewer if that is over a quarter of all descriptors
_RESERVE = 4  # descriptors: enough for the probes while idle connections come a hundred a second
_PAUSE_SECS = 0.01  # after accepting from the reserve: time to answer, before the next connection takes its place
_WARN_SECS = 60.0  # between two log lines about descriptors
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """Where to listen: host names or addresses, separated by commas. Port 0 takes a free one."""

    host: str = "0.0.0.0"  # noqa: S104 - the kubelet probes from outside the pod
    port: int = 8080


class Acceptor:
    """Accepts connections and hands each to a protocol, which must call `opened` and `closed`.

    Each is cut after five seconds unless `keep` is called for it. When all places are taken, the oldest connection is
    cut to make room.
    """

    def __init__(self, options: HealthOptions) -> None:
        self._options = options
        self.port = options.port
        self._places = max(_RESERVE, min(_PLACES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self._sockets: list[socket.socket] = []
        self._waiting: dict[asyncio.Transport, asyncio.TimerHandle] = {}  # oldest first
        self._reserve: list[int] = []
        self._opening: set[asyncio.Task[object]] = set()
        self._warned_at = -math.inf

    async def start(self, factory: Callable[[], asyncio.Protocol]) -> None:
        """Listen. Raises `CannotStart` when the port is taken or an address does not belong to this machine."""
        try:
            self._sockets = await _bind(self._options)
        except (OSError, UnicodeError) as error:  # UnicodeError: the text cannot be a host name
            where = f"HEALTH_HOST={self._options.host} HEALTH_PORT={self._options.port}"
            raise CannotStart(f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}") from error
        self.port = self._sockets[0].getsockname()[1]
        self._factory = factory
        for listening in self._sockets:
            listening.setblocking(False)
        self._refill()
        self._resume()

    async def stop(self) -> None:
        """Accept nothing more. Open connections stay."""
        self._pause()
        while self._sockets:
            self._sockets.pop().close()
        while self._reserve:
            os.close(self._reserve.pop())
        await asyncio.gather(*self._opening)

    def cut(self) -> None:
        """Cut every connection for which `keep` was not called."""
        for transport in list(self._waiting):
            self._cut(transport)

    def opened(self, transport: asyncio.Transport) -> None:
        """Note a new connection, and give it a time limit."""
        if len(self._waiting) >= self._places:
            self._cut(next(iter(self._waiting)))
        self._waiting[transport] = asyncio.get_running_loop().call_later(_ANSWER_SECS, self._cut, transport)

    def keep(self, transport: asyncio.Transport) -> bool:
        """Let a connection last; the caller must limit their number. False while the reserve is in use."""
        self._refill()
        if len(self._reserve) < _RESERVE:
            return False
        self._forget(transport)
        return True

    def closed(self, transport: asyncio.Transport) -> None:
        """Note that a connection has ended. Its descriptor refills the reserve."""
        self._forget(transport)
        asyncio.get_running_loop().call_soon(self._refill)  # asyncio closes the socket right after this call

    def _forget(self, transport: asyncio.Transport) -> None:
        if (timer := self._waiting.pop(transport, None)) is not None:
            timer.cancel()

    def _cut(self, transport: asyncio.Transport) -> None:
        self._forget(transport)
        transport.abort()

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._warn(error)
            taken = self._accept_from_reserve(listening)
            if taken is None:
                return
            connection = taken
        connection.setblocking(False)
        opening = asyncio.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    def _accept_from_reserve(self, listening: socket.socket) -> socket.socket | None:
        """Accept with a descriptor of the reserve, then pause. If the reserve is empty, cut the oldest connection."""
        self._pause()
        asyncio.get_running_loop().call_later(_PAUSE_SECS, self._resume)
        if self._reserve:
            os.close(self._reserve.pop())
            with contextlib.suppress(OSError):  # another thread may have taken the descriptor
                return listening.accept()[0]
        elif self._waiting:
            self._cut(next(iter(self._waiting)))
        return None

    async def _open(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._factory, connection)
        except OSError:  # gone already
            connection.close()

    def _pause(self) -> None:
        for listening in self._sockets:
            asyncio.get_running_loop().remove_reader(listening)

    def _resume(self) -> None:
        for listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _refill(self) -> None:
        while self._sockets and len(self._reserve) < _RESERVE:
            try:
                self._reserve.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                return

    def _warn(self, error: OSError) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._warned_at >= _WARN_SECS:
            self._warned_at = now
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            log.warning("%s: probes are answered from a reserve", error.strerror, extra={"file_limit": limit})


async def _bind(options: HealthOptions) -> list[socket.socket]:
    """Open one socket for each address, all on the same port."""
    if options.host == "::":  # alone it means IPv4 and IPv6; in a list, each entry is what it says
        return [_all_addresses(options.port)]
    port, sockets = options.port, list[socket.socket]()
    try:
        for family, address in await _addresses(options):
            here = (address[0], port, *address[2:])
            sockets.append(socket.create_server(here, family=family, backlog=_BACKLOG))
            port = sockets[0].getsockname()[1]
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets


async def _addresses(options: HealthOptions) -> list[tuple[int, tuple[str | int | bytes, ...]]]:
    """Return family and address of each host, without duplicates."""
    resolve = partial(asyncio.get_running_loop().getaddrinfo, port=options.port, type=socket.SOCK_STREAM)
    found = [info for host in options.host.split(",") for info in await resolve(host.strip())]
    return list(dict.fromkeys((int(info[0]), tuple(info[4])) for info in found))


def _all_addresses(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    log.warning("HEALTH_HOST=::, but this machine has no IPv6: listening on IPv4 alone")
    return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)  # noqa: S104 - what the setting says
