"""Runs a server, a daemon and a listener, and plays loads to them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from transcriber import settings
from transcriber.broker.connection import Connection
from transcriber.cli.programs import (
    LogLine,
    Program,
    environment,
    find_server,
    run_daemon,
    run_program,
    run_server,
    unless_ended,
)
from transcriber.client.listener import Listener
from transcriber.client.producer import Delivery, Producer
from transcriber.domain.errors import CannotStart
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from benchmarks.load import Plan
    from transcriber.domain.chunks import AudioFormat

T = TypeVar("T")
Message = dict[str, Any]

# These settings keep live audio from being dropped: an hour of latency, and room for all windows.
ALL_OF_IT = {"TRANSCRIPTION_MAX_LATENCY_SECS": "3600", "TRANSCRIPTION_QUEUE_CAPACITY": "10000"}
PAUSE = 1.0  # seconds after a window, within which its pause closes it, for any length of chunks
# Seconds beyond L_max until every session must have ended, on a busy machine. After half of them an `end` that may have
# been lost is sent again.
_PATIENCE = 30.0
_SILENT_SECS = 600.0  # without a message about a session; a large model on a slow machine may need minutes for a window
_ROOT = Path(__file__).parents[1]
_CLIENT_SETTINGS = ("NATS_",)  # taken from the environment for the user's own server


@dataclass(slots=True)
class Played:
    """The results of one plan. Arrivals and `begin` in seconds on the monotonic clock, which all processes share."""

    plan: Plan
    begin: float = 0.0
    publisher: dict[str, Any] = field(default_factory=dict)  # messages, lateness, CPU seconds
    messages: list[tuple[float, Message]] = field(default_factory=list)

    def of(self, kind: str) -> list[tuple[float, Message]]:
        return [(at, body) for at, body in self.messages if body["type"] == kind]

    def number(self, body: Message) -> int:
        """Which of the plan's streams a message is about."""
        return int(body["stream"].rpartition("-")[2])

    def decided(self, kind: str) -> list[tuple[float, Message]]:
        """Finals or gaps of windows that their own pause or length closed.

        The end of all streams closes the open windows at once, which independent producers would not do.
        """
        return [(at, body) for at, body in self.of(kind) if body["end"] + PAUSE <= self.plan.audio_seconds]

    def dropped(self) -> Counter[str]:
        """Decided gaps, by reason."""
        return Counter(body["reason"] for _, body in self.decided("gap"))

    def seconds(self, fate: str) -> float:
        """Audio of all sessions by fate: received, transcribed, silent."""
        return float(sum(body[fate] for _, body in self.of("ended")))

    def gap_seconds(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for _, body in self.of("ended"):
            total.update(body["gap"])
        return total


class Log:
    """The daemon's log lines. Drops are counted from events, not from here."""

    def __init__(self) -> None:
        self._records: list[LogLine] = []
        self._told: set[str] = set()
        self._news = asyncio.Event()

    def add(self, record: LogLine) -> None:
        self._records.append(record)
        self._news.set()
        if record["level"] in {"error", "critical"} and record["message"] not in self._told:
            self._told.add(record["message"])  # once: a lost server causes a line for each message under way
            sys.stderr.write(f"daemon: {record['message']}\n")

    async def take(self, message: str) -> LogLine:
        """Wait for the next line with this message, and remove it."""
        while True:
            for record in self._records:
                if record["message"] == message:
                    self._records.remove(record)
                    return record
            self._news.clear()
            await self._news.wait()


class Rig:
    """A server and a daemon, to which a benchmark plays its loads."""

    def __init__(self, environ: Mapping[str, str], connection: Connection, programs: list[Program], log: Log) -> None:
        """`programs`: perhaps a server, and last the daemon."""
        self.environ = environ
        self.daemon = programs[-1]
        self.log = log
        self._programs = programs
        self._patience = settings.load(environ).max_latency + _PATIENCE
        self._connection = connection
        self._listener = Listener(connection)
        self._heard: dict[str, list[tuple[float, Message]]] = {}  # by session, as in `Played`
        self._news = asyncio.Event()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work. Raises `CannotStart` if the server or the daemon ends."""
        return await unless_ended(work, *self._programs)

    async def start(self) -> asyncio.Task[None]:
        """Begin to listen. Returns the task that listens."""
        await self._listener.start()
        return asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        """Keep all messages about our streams, with their arrival time, without end."""
        async for body in self._listener.messages():
            at = time.monotonic()
            if (heard := self._heard.get(body["session"])) is not None:
                heard.append((at, body))
                self._news.set()

    @asynccontextmanager
    async def playing(self, plan: Plan) -> AsyncIterator[Played]:
        """Publish in a process of its own. The block ends when everything is sent; the sessions stay open."""
        played = Played(plan)
        self._heard[plan.prefix] = played.messages
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_line(line: str) -> None:
            if not line.startswith("{"):
                sys.stderr.write(f"load: {line}\n")
            elif not begun.done():
                played.begin = json.loads(line)["begin"]
                begun.set_result(None)
            else:
                played.publisher = json.loads(line)

        command = (sys.executable, "-P", "-m", "benchmarks.load", str(plan))
        async with run_program("the load generator", *command, on_line=on_line, env=self.environ) as program:
            finishing = asyncio.create_task(program.finished())
            try:
                await asyncio.wait({begun, finishing}, return_when=asyncio.FIRST_COMPLETED)
                if begun.done():
                    yield played
                await finishing
            finally:
                finishing.cancel()

    async def end(self, played: Played) -> None:
        """End the plan's sessions, and wait until the daemon has published each one's account. Raises as `until` does.

        An `end` that was lost, because the daemon was too slow for its server, is sent again.
        """
        plan = played.plan
        headers = {
            incoming.SESSION: plan.prefix,
            incoming.EVENT: "end",
            incoming.OFFSET: str(plan.chunks * plan.chunk_frames),
        }
        telling = asyncio.create_task(self.until(played, "ended", plan.streams))
        try:
            while not telling.done():
                ended = {played.number(body) for _, body in played.of("ended")}
                for number in set(range(plan.streams)) - ended:
                    await self._connection.publish(f"{incoming.AUDIO}.{plan.stream(number)}", b"", headers)
                await asyncio.wait({telling}, timeout=self._patience - _PATIENCE / 2)
            await telling
        finally:
            telling.cancel()

    async def play(self, plan: Plan) -> Played:
        """Publish everything, end the sessions, and wait for all results."""
        async with self.playing(plan) as played:
            pass
        await self.end(played)
        return played

    async def until(self, played: Played, kind: str, count: int) -> None:
        """Wait for so many messages. Raises `CannotStart` if they do not come."""
        try:
            async with asyncio.timeout(self._patience):
                while len(found := played.of(kind)) < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise CannotStart(f"the daemon told {len(found)} of {count} {kind} within {self._patience:g} s") from None

    async def send(self, delivery: Delivery, audio_format: AudioFormat, pieces: Iterable[bytes]) -> list[Message]:
        """Publish one session as any producer would. Returns all messages about it, `ended` last.

        Raises `CannotStart` if no message comes for long.
        """
        heard = self._heard[delivery.session] = []
        producer = Producer(self._connection, delivery, audio_format)
        await producer.send(pieces)
        await producer.end()
        while not heard or heard[-1][1]["type"] != "ended":
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), _SILENT_SECS)
            except TimeoutError:
                raise CannotStart(f"the daemon said nothing about {delivery.stream} for {_SILENT_SECS:g} s") from None
        del self._heard[delivery.session]
        return [body for _, body in heard]


def environ_for(url: str | None, **overrides: str) -> dict[str, str]:
    """The environment for child processes, with the user's NATS_* variables only for the user's own server."""
    kept = {k: v for k, v in os.environ.items() if k.startswith(_CLIENT_SETTINGS)} if url else {}
    # Children run with -P, so they find this package and the checkout's daemon only by this.
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return environment(os.environ) | {"PYTHONPATH": path} | kept | ({"NATS_URL": url} if url else {}) | overrides


@asynccontextmanager
async def rig(environ: Mapping[str, str], module: str = "transcriber") -> AsyncIterator[Rig]:
    """Start a server, unless the environment names one, and the daemon. Both stop with the block."""
    settings.load(environ)  # raises here for a bad setting
    async with AsyncExitStack() as stack:
        programs: list[Program] = []
        if "NATS_URL" not in environ:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transcriber-benchmarks-")))
            url, server = await stack.enter_async_context(run_server(find_server(), folder))
            environ = {**environ, "NATS_URL": url}
            programs.append(server)
        log = Log()
        _model, daemon = await stack.enter_async_context(run_daemon(environ, module, log.add))
        programs.append(daemon)
        connection = Connection(settings.load(environ).broker, name="benchmarks")
        stack.push_async_callback(connection.close)
        await connection.open()
        found = Rig(environ, connection, programs, log)
        stack.callback((await found.start()).cancel)
        yield found
