"""The daemon's life: build, start, run, stop, in the order in which it reads."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from transcriber import __version__
from transcriber.audio.sessions import Sessions
from transcriber.broker.connection import Connection
from transcriber.broker.live import LiveSource
from transcriber.broker.publisher import Publisher
from transcriber.broker.requests import Control, RequestService
from transcriber.daemon.ending import ExitCode, signals, why, within
from transcriber.daemon.model_swap import Models, ModelSwap, behind, pulled
from transcriber.daemon.standing import snapshot, summarise, wedged
from transcriber.domain.measurements import Snapshot, Tallies
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.http.overview import Standing
from transcriber.http.server import HealthServer
from transcriber.http.status_page import StatusPage
from transcriber.models import store
from transcriber.pipeline import listeners
from transcriber.pipeline.interim import Partials
from transcriber.pipeline.live import LivePipeline
from transcriber.pipeline.parts import Parts
from transcriber.pipeline.requests import Recordings
from transcriber.protocol import incoming
from transcriber.recording import read_16k
from transcriber.telemetry.exposition import CONTENT_TYPE
from transcriber.telemetry.observer import Telemetry
from transcriber.worker import capacity, scheduling
from transcriber.worker.engine import Engine, WhisperEngine, WhisperOptions
from transcriber.worker.queue import JobQueue
from transcriber.worker.whisper import WhisperThread

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from transcriber.domain.events import Lag
    from transcriber.settings import Settings

log = logging.getLogger(__name__)

_RECONNECT_SECS = 5.0  # at shutdown: what a broker that is away gets to come back, out of the grace period
_UNSUBSCRIBE_SECS = 1.0  # a round trip takes milliseconds; a server that does not answer gets no more
_LEAST_PUBLISH_SECS = 0.25  # even when the grace period is over: a working server needs milliseconds
_ANSWER_SECS = 0.25  # to send refusals that are ready
_PUBLISH_SECS = 1.5  # the end of the grace period, kept for publishing what it decided


class Service:
    """One daemon. `run` starts it, waits for a signal or the loss of the broker, and stops it.

    `load_engine` makes an engine; it runs on the thread that has it.
    """

    def __init__(self, settings: Settings, load_engine: Callable[[WhisperOptions], Engine] = WhisperEngine) -> None:
        self._settings = settings
        self._load_engine = load_engine
        self._model_path = behind(settings.whisper.path)
        self._swap: ModelSwap | None = None
        self._tallies = Tallies()
        self._sessions = Sessions(settings.sessions, lambda: uuid4().hex, self._tallies)
        self._queue = JobQueue(1)
        self._connection: Connection | None = None
        self._lag: Callable[[], Lag | None] = lambda: None
        self._ready = False
        self._drain_until = self._publish_until = 0.0
        self._stop = asyncio.Event()
        self._worker = WhisperThread(lambda: self._make_engine(self._model_path), self._longest_wait)
        self._page = StatusPage(self._tallies, self._shown) if settings.status_page else None
        checks = {"/livez": self._not_alive, "/readyz": self._not_ready}
        self._health = HealthServer(settings.health, checks, self._page)

    @property
    def _longest_wait(self) -> float:
        """Seconds after which a window is given up."""
        return self._settings.max_latency

    async def run(self) -> ExitCode:
        """Live until a signal (0) or until the broker is lost for good (4). Raises `CannotStart`."""
        with signals(self._stop, self._on_hang_up):
            try:
                return await self._live()
            finally:
                summarise(self._tallies, self._queue, self._sessions)

    async def _live(self) -> ExitCode:
        # What is entered first is left last: telemetry hears of everything, and NATS takes the last results.
        async with AsyncExitStack() as stack:
            telemetry = Telemetry(self._settings.telemetry, self._tallies, self._snapshot)
            stack.push_async_callback(telemetry.shutdown)
            if telemetry.scrape is not None:
                self._health.offer("/metrics", CONTENT_TYPE, telemetry.scrape)
            await self._health.start()
            stack.push_async_callback(self._health.stop)
            log.info("starting", extra={"version": __version__, "health_port": self._health.port})
            self._connection = connection = Connection(self._settings.broker)
            starting: asyncio.Future[Any] = asyncio.create_task(self._start(connection, stack, telemetry))
            stopping: asyncio.Future[Any] = asyncio.create_task(self._stop.wait())
            await asyncio.wait({starting, stopping, connection.lost}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                return why({connection.lost})
            watched: set[asyncio.Future[None]] = {connection.lost, *starting.result()}
            await asyncio.wait({stopping, *watched}, return_when=asyncio.FIRST_COMPLETED)
            self._ready = False
            if self._swap is not None:
                self._swap.give_up()
            grace = self._settings.shutdown_grace
            self._publish_until = asyncio.get_running_loop().time() + grace
            self._drain_until = self._publish_until - min(_PUBLISH_SECS, grace / 2)
            log.info("draining", extra={"queue_depth": self._queue.depth, "grace_secs": grace})
            return why(watched)

    async def _start(
        self, connection: Connection, stack: AsyncExitStack, telemetry: Telemetry
    ) -> set[asyncio.Future[None]]:
        """Model, capacity, broker, subscriptions; what undoes each step goes onto the stack right behind it."""
        settings = self._settings
        await self._load()
        await connection.open()
        stack.push_async_callback(connection.close)
        publisher = Publisher(connection, self._queue.capacity + 4 * settings.sessions.max_streams)
        publishing = asyncio.create_task(publisher.run())
        stack.push_async_callback(self._publish_rest, connection, publisher, publishing)
        control = Control(incoming.model_control_of(settings.subject), self._swap) if self._swap is not None else None
        requests = RequestService(connection, self._recordings(telemetry, connection), __version__, control)
        tasks = await self._serve(connection, self._parts(connection, publisher, telemetry), requests, stack)
        self._ready = True
        where = {"subject": settings.subject, "nats": settings.broker.address, "health_port": self._health.port}
        log.info("ready", extra=where)
        return {publishing, *tasks}

    async def _serve(
        self, connection: Connection, parts: Parts, requests: RequestService, stack: AsyncExitStack
    ) -> set[asyncio.Future[None]]:
        """Take live audio and requests. Returns what must not end."""
        pipeline = LivePipeline(parts)
        stack.push_async_callback(self._finish_queue, pipeline, requests)
        source = LiveSource(connection, self._settings.subject, self._settings.input)
        keeping_time = asyncio.create_task(pipeline.keep_time(self._settings.status_interval, source))
        stack.callback(keeping_time.cancel)
        await requests.start()
        await source.start()
        ingesting = asyncio.create_task(pipeline.ingest(source))
        stack.push_async_callback(self._end_streams, source, requests, pipeline, ingesting)
        return {keeping_time, ingesting}

    def _parts(self, connection: Connection, publisher: Publisher, telemetry: Telemetry) -> Parts:
        settings = self._settings
        fitting = {"max_payload": lambda: connection.max_payload}
        interval = round(settings.partial_interval * SAMPLE_RATE)
        partials = Partials(self._sessions, self._queue, publisher, self._tallies, interval=interval, **fitting)
        pages = () if self._page is None else (listeners.Page(self._page.tell),)
        return Parts(
            sessions=self._sessions,
            queue=self._queue,
            publisher=publisher,
            observer=telemetry,
            listeners=listeners.Listeners(listeners.Counter(self._tallies), listeners.Logger(), *pages),
            tallies=self._tallies,
            max_latency=settings.max_latency,
            pace=lambda: self._worker.pace,
            look=partials.look if interval else None,
            **fitting,
        )

    async def _load(self) -> None:
        """Verify the model before native code sees it, load and measure it, derive the capacity."""
        settings = self._settings
        verified = store.verify(self._model_path, settings.model_sha256)
        window = settings.sessions.stream.window_secs
        rtf = await self._worker.start(speech(window), settings.rtf)
        scheduling.give_way()  # to the engine's thread, which is there by now and does not inherit it
        derived = self._derived(rtf)
        self._queue = JobQueue(derived.jobs, self._worker.promise, self._worker.weigh)
        self._worker.serve(self._queue)
        extra = {"model": self._worker.model, "size": verified.header.size, "threads": settings.whisper.threads}
        log.info("model ready: %s", derived, extra=extra)
        if verified.path == store.bundled_model_path():
            log.warning(store.BUNDLED_NOTE)
        self._swap = ModelSwap(
            self._worker,
            self._queue,
            Models(settings.whisper.path, settings.model_sha256, pulled()),
            self._make_engine,
            speech=partial(speech, window),
            derive=self._derived,
        )

    def _make_engine(self, path: Path) -> Engine:
        return self._load_engine(dataclasses.replace(self._settings.whisper, path=path))

    def _derived(self, rtf: float) -> capacity.Capacity:
        """The queue's capacity, as the settings give it or the promise allows."""
        settings = self._settings
        derived = capacity.derive(settings.max_latency, settings.sessions.stream.window_secs, rtf)
        return derived if settings.queue_capacity is None else capacity.given(settings.queue_capacity, derived)

    def _on_hang_up(self) -> None:
        if self._swap is not None:
            self._swap.reload()
        else:
            log.warning("SIGHUP: there is no model yet that could be swapped")

    async def _end_streams(
        self, source: LiveSource, requests: RequestService, pipeline: LivePipeline, ingesting: asyncio.Task[None]
    ) -> None:
        """Take no more audio, decode what is here, and make last windows of what is buffered."""
        stopping = asyncio.gather(requests.stop(), source.stop(), return_exceptions=True)
        await within(min(_UNSUBSCRIBE_SECS, self._left), stopping)
        source.end()
        await within(self._left / 2, ingesting)  # the other half is for what is queued
        for arrival in source.rest():
            pipeline.receive(arrival, time.monotonic())
        pipeline.end_all()
        self._queue.close()

    async def _finish_queue(self, pipeline: LivePipeline, requests: RequestService) -> None:
        """Let the worker finish what is queued within the grace period; what is left becomes gaps."""
        self._queue.close()
        await within(self._left, self._worker.finished.wait())
        pipeline.give_up()
        await within(_ANSWER_SECS, requests.give_up())

    async def _publish_rest(self, connection: Connection, publisher: Publisher, publishing: asyncio.Task[None]) -> None:
        """Publish what is left; with the broker away, wait a little, then tell the log instead."""
        if not publishing.done() and not connection.lost.done():
            await within(min(self._publishing_left, _RECONNECT_SECS), publisher.emptied())
        await within(0.0, publishing)
        for message in publisher.undelivered():
            extra = {"subject": message.subject, "body": message.payload.decode()}
            log.error("not published: NATS is away", extra=extra)

    @property
    def _left(self) -> float:
        """Seconds of the grace period that are left for work."""
        return max(0.0, self._drain_until - asyncio.get_running_loop().time())

    @property
    def _publishing_left(self) -> float:
        """Seconds that are left for publishing."""
        return max(_LEAST_PUBLISH_SECS, self._publish_until - asyncio.get_running_loop().time())

    def _recordings(self, telemetry: Telemetry, connection: Connection) -> Recordings:
        return Recordings(
            self._queue,
            telemetry,
            listeners.Listeners(listeners.Counter(self._tallies), listeners.Logger()),
            self._tallies,
            stream_options=self._settings.sessions.stream,
            input_options=self._settings.input,
            max_latency=self._settings.max_latency,
            max_payload=lambda: connection.max_payload,
            model=lambda: self._worker.model,
        )

    def _snapshot(self) -> Snapshot:
        lag, limit = self._lag(), self._settings.max_latency
        return snapshot(self._worker, self._queue, self._sessions, self._connection, lag=lag, max_latency=limit)

    @property
    def _state(self) -> str:
        """What the status page says first."""
        return self._not_alive() or self._not_ready() or "ready"

    def _shown(self) -> Standing:
        return Standing(
            self._state,
            __version__,
            self._worker.model,
            self._settings.max_latency if not self._settings.durable else None,
            self._snapshot(),
            self._sessions.active,
            lags=self._settings.durable,
        )

    def _not_alive(self) -> str | None:
        """What is wrong with this process, as far as a restart could mend it: never NATS, never the collector."""
        if self._ready and not self._worker.alive:
            return "the Whisper thread is dead"
        return wedged(self._worker, self._settings.max_latency)

    def _not_ready(self) -> str | None:
        if not self._ready:
            return "starting" if not self._drain_until else "draining"
        return None if self._connection is not None and self._connection.connected.is_set() else "NATS is away"


def speech(seconds: float) -> NDArray[np.float32]:
    """Real speech to measure with: decoding noise costs less than decoding words."""
    return np.resize(read_16k(store.bundled("demo.flac")), round(seconds * SAMPLE_RATE))
