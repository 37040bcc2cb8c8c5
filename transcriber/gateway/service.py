"""Builds, starts, runs and stops a gateway, in the order of this file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import secrets
import ssl
import time
from typing import TYPE_CHECKING, Any

from transcriber import __version__
from transcriber.broker.asking import Asking
from transcriber.broker.connection import Connection
from transcriber.broker.direct import DirectLine
from transcriber.domain.errors import CannotStart, SettingError
from transcriber.gateway.bridge import RESTARTING
from transcriber.gateway.figures import Figures
from transcriber.gateway.front import Entrance, Front
from transcriber.gateway.gate import Gate
from transcriber.gateway.keys import Keys
from transcriber.gateway.lanes import Lanes
from transcriber.gateway.own import add_own_paths
from transcriber.gateway.parts import Parts
from transcriber.gateway.requests import Requests
from transcriber.gateway.results import Results
from transcriber.gateway.routes import Routes
from transcriber.gateway.site import REGISTERS, Site
from transcriber.gateway.surroundings import Surroundings
from transcriber.gateway.tokens import Tokens
from transcriber.gateway.workers import Workers
from transcriber.gateway.wyoming_door import WyomingDoor
from transcriber.telemetry.gateway import GatewayTelemetry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transcriber.gateway.bridge import Bridge
    from transcriber.gateway.options import GatewayOptions
    from transcriber.gateway.site import Register

log = logging.getLogger(__name__)

# A second: each socket's turn comes once a second. Of 10,000, one turn's 200 keep the others waiting for a millisecond.
_TICKS = 50
_SPARE_FILES = 64  # descriptors besides those of the clients
_BACKLOG = 2048  # connections that wait to be accepted: all of a larger gateway's clients may come back at once
_HANDSHAKE_SECS = 10.0  # of TLS: two round trips and some computing, and twice what a head may take
_CLOSE_SECS = 1.0  # for the closing handshakes at the end
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Gateway:
    """One gateway. `run` serves until `stop` is set; then it ends every session and closes every connection."""

    def __init__(self, options: GatewayOptions, registers: Iterable[Register] = REGISTERS) -> None:
        """Raises `SettingError` when it would serve strangers, or cannot read its keys."""
        if options.host not in _LOOPBACK and options.keys is None and not options.open:
            allowed = "127.0.0.1, ::1 or localhost without GATEWAY_KEYS; to serve everybody, set GATEWAY_AUTH=none"
            raise SettingError("GATEWAY_HOST", options.host, allowed)
        self._options = options
        self._registers = registers
        self.figures = Figures(max_connections=options.max_connections)
        self.keys = Keys(None if options.open else options.keys)
        self._tokens = Tokens(options.token_secret.encode() or secrets.token_bytes(32))
        self._telemetry: GatewayTelemetry | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._servers: list[asyncio.Server] = []
        self.ready = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> asyncio.Future[None] | None:
        """Run until `stop` is set. Returns the future that failed if NATS was lost for good. Raises `CannotStart`."""
        connection = Connection(self._options.broker, name="transcriber gateway")
        await connection.open()
        try:
            await self._start(connection)
            stopping = asyncio.create_task(stop.wait())
            ends: set[asyncio.Future[Any]] = {stopping, connection.lost, *self._tasks}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await self._shut_down(0.0 if connection.lost.done() else self._options.shutdown_grace)
        finally:
            for server in self._servers:
                server.close()
            for task in self._tasks:
                task.cancel()
            await connection.close()
            if self._telemetry is not None:
                await self._telemetry.shutdown()
        return next((task for task in (connection.lost, *self._tasks) if task.done() and not task.cancelled()), None)

    async def _start(self, connection: Connection) -> None:
        asking = Asking(connection)
        await asking.start()
        self.workers = workers = Workers(connection, asking, lambda: bool(self.figures.connections), self._on_answers)
        line = DirectLine(connection)
        results = Results(line)
        self._lanes = lanes = Lanes(self._options.fleet, line, results.deserted)
        gate = Gate(self._options, self.keys, self._tokens, workers, self.figures)
        self._telemetry = telemetry = GatewayTelemetry(self._options.telemetry, self.figures, workers)
        routes = Routes()
        parts = Parts(
            options=self._options,
            routes=routes,
            requests=Requests(asking, workers),
            workers=workers,
            lanes=lanes,
            figures=self.figures,
        )
        add_own_paths(parts, gate, self._tokens, connection, telemetry.scrape)
        for register in self._registers:
            register(parts)
        self._gate, self._site = gate, Site(routes, gate, self.figures, telemetry)
        shared = Surroundings(
            line=line, results=results, lanes=lanes, figures=self.figures, gateway=secrets.token_hex(3)
        )
        self._entrance = Entrance(gate, routes, shared, telemetry, self._site)
        self._site.upgrade = self._entrance.upgrade
        self._door = WyomingDoor(parts, self._entrance, shared, gate.nobody)
        await workers.ask()
        self._tasks = [asyncio.create_task(workers.run()), asyncio.create_task(self._tick())]
        self._servers = [await self._listen()]
        if self._options.wyoming_port is not None:
            self._servers.append(await self._door.listen())
        self._tell_ready(workers.count)
        self.ready.set()

    def _tell_ready(self, workers: int) -> None:
        extra = {"host": self._options.host, "port": self.port, "nats": self._options.broker.address}
        log.info(
            "ready",
            extra={**extra, "version": __version__, "workers": workers, "wyoming_port": self._door.port or None},
        )

    async def _listen(self) -> asyncio.Server:
        options = self._options
        _raise_file_limit(options.max_connections)
        try:
            context = _tls(options)
            server = await asyncio.get_running_loop().create_server(
                lambda: Front(self._entrance),
                options.host,
                options.port,
                ssl=context,
                backlog=_BACKLOG,
                ssl_handshake_timeout=None if context is None else _HANDSHAKE_SECS,
            )
        except (OSError, UnicodeError) as error:
            where = f"GATEWAY_HOST={options.host} GATEWAY_PORT={options.port}"
            raise CannotStart(f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}") from error
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _tick(self) -> None:
        """Call every socket about once a second."""
        while True:
            sockets = list(self._entrance.sockets)
            for part in range(_TICKS):
                for socket in sockets[part::_TICKS]:
                    socket.tick(time.monotonic())
                await asyncio.sleep(1 / _TICKS)

    def _on_answers(self, gone: bool) -> None:
        """The workers have been asked, and perhaps one of them is gone."""
        back = self._lanes.update(self.workers.all)
        for bridge in self._bridges if gone or back else ():
            if gone:
                bridge.suspect()
            if back:
                bridge.renew(back)

    @property
    def _bridges(self) -> list[Bridge]:
        return [socket.bridge for socket in self._entrance.sockets if socket.bridge is not None]

    def reload(self) -> None:
        """Read the keys again; close the connections of those that are gone."""
        try:
            gone = self.keys.reload()
        except SettingError as error:
            log.error("keys not reloaded: %s", error)  # noqa: TRY400 - the sentence says it all
            return
        for socket, (key, _) in list(self._entrance.sockets.items()):
            if key.revoked and socket.bridge is not None:
                socket.bridge.close(1008, "this API key was revoked")
        log.info("keys reloaded", extra={"keys": len(self.keys), "revoked": len(gone)})

    async def _shut_down(self, grace: float) -> None:
        """Refuse what is new, end every session, wait for the last words, close."""
        self._gate.closing = True
        for server in self._servers:
            server.close()
        for transport in list(self._entrance.fronts):
            transport.abort()
        log.info("draining", extra={"connections": self.figures.connections})
        serving = asyncio.create_task(self._site.shut_down(grace))
        for bridge in self._bridges:
            bridge.finish()
        await self._until_closed(grace)
        for bridge in self._bridges:
            bridge.close(*RESTARTING)
        await self._until_closed(_CLOSE_SECS)
        for socket in list(self._entrance.sockets):
            socket.abort()
        await serving
        log.info("stopped", extra=self._summary())

    async def _until_closed(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._entrance.sockets:  # noqa: ASYNC110 - ends of thousands, and not worth an event each
                    await asyncio.sleep(1 / _TICKS)

    def _summary(self) -> dict[str, object]:
        figures = self.figures
        return {
            "opened": figures.opened.total(),
            "requests": figures.requests.total(),
            "refused": figures.refusals().total(),
            "audio_secs": round(figures.audio, 3),
            "lost_secs": round(figures.lost, 3),
        }


def _tls(options: GatewayOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


def _raise_file_limit(connections: int) -> None:
    """Allow as many descriptors as there may be connections, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    if soft < wanted:
        granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
        if granted < wanted:
            text = "GATEWAY_MAX_CONNECTIONS=%d needs %d open files, and the system allows %d"
            log.warning(text, connections, wanted, granted)
