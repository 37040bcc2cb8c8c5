"""Builds, starts, runs and stops a daemon, in the order of this file."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from transcriber import __version__
from transcriber.broker.connection import Connection
from transcriber.broker.publisher import Publisher
from transcriber.broker.requests import Control, RequestService
from transcriber.daemon.model_swap import Models, ModelSwap, pulled_models, resolve_link
from transcriber.daemon.modes import mode_for
from transcriber.daemon.reference import reference_speech
from transcriber.daemon.running import Running
from transcriber.daemon.shutdown import ExitCode, signals, why, within
from transcriber.daemon.state import Grace, State
from transcriber.daemon.status import snapshot, summarise, wedged
from transcriber.daemon.worker_state import WorkerState
from transcriber.domain.measurements import Snapshot, Tallies
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.http.overview import PageState
from transcriber.http.server import HealthServer
from transcriber.http.status_page import StatusPage
from transcriber.models import store
from transcriber.pipeline import listeners
from transcriber.pipeline.interim import Interim
from transcriber.pipeline.parts import Parts
from transcriber.pipeline.requests import RequestHandler
from transcriber.protocol import incoming
from transcriber.telemetry.observer import Telemetry
from transcriber.telemetry.prometheus import CONTENT_TYPE
from transcriber.worker import capacity, scheduling
from transcriber.worker.engines.loading import load_engine
from transcriber.worker.queue import JobQueue
from transcriber.worker.thread import WhisperThread

if TYPE_CHECKING:
    from pathlib import Path

    from transcriber.audio.sessions import Sessions
    from transcriber.settings import Settings
    from transcriber.worker.engine import Engine, WhisperOptions

log = logging.getLogger(__name__)

_RECONNECT_SECS = 5.0  # at shutdown, how long to wait for NATS to come back; part of the grace period


class Service:
    """One daemon. `run` starts it, waits for a signal or the loss of the broker, and stops it.

    `load_engine` makes an engine. It is called on the thread that will use the engine.
    """

    def __init__(self, settings: Settings, load_engine: Callable[[WhisperOptions], Engine] = load_engine) -> None:
        self._settings = settings
        self._load_engine = load_engine
        self._model_path = resolve_link(settings.whisper.path)
        self._state = State.STARTING
        self._tallies = Tallies()
        self._mode = mode = mode_for(settings, self._tallies)
        self._worker = WhisperThread(lambda: self._make_engine(self._model_path), self._mode.longest_wait)
        self._worker_state = WorkerState(self._worker, settings)
        self._page = StatusPage(self._tallies, self._page_state, mode.fleet_view) if settings.status_page else None
        checks = {"/livez": self._not_alive, "/readyz": self._not_ready}
        self._health = HealthServer(settings.health, checks, self._page)
        self._stop = asyncio.Event()
        self._measured = 1.0  # RTF, before there is load
        self._failed = False  # whether a step of the shutdown failed
        # Set by the start, in this order.
        self._telemetry: Telemetry | None = None
        self._queue: JobQueue | None = None
        self._swap: ModelSwap | None = None
        self._connection: Connection | None = None
        self._publisher: Publisher | None = None
        self._publishing: asyncio.Task[None] | None = None

    async def run(self) -> ExitCode:
        """Run until a signal (exit code 0) or until the broker is lost for good (4). Raises `CannotStart`."""
        with signals(self._stop, self._on_hang_up):
            try:
                code = await self._live()
            finally:
                # A start that did not complete leaves nothing to finish.
                await self._shut_down(Grace(self._settings.shutdown_grace if self._state is State.DRAINING else 0.0))
                summarise(self._tallies, self._queue, self._mode.sessions)
        return ExitCode.DEFECT if self._failed and code is ExitCode.CLEAN else code

    async def _live(self) -> ExitCode:
        """Start, then wait for the end. The state is `DRAINING` afterwards if there is work to finish."""
        self._telemetry = Telemetry(self._settings.telemetry, self._tallies, self._snapshot)
        if self._telemetry.scrape is not None:
            self._health.offer("/metrics", CONTENT_TYPE, self._telemetry.scrape)
        await self._health.start()
        log.info("starting", extra={"version": __version__, "health_port": self._health.port})
        connection = Connection(self._settings.broker)
        starting: asyncio.Future[Any] = asyncio.create_task(self._start(connection, self._telemetry))
        stopping: asyncio.Future[Any] = asyncio.create_task(self._stop.wait())
        await asyncio.wait({starting, stopping, connection.lost}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return why({connection.lost})
        watched: set[asyncio.Future[None]] = {connection.lost, *starting.result()}
        await asyncio.wait({stopping, *watched}, return_when=asyncio.FIRST_COMPLETED)
        self._state = State.DRAINING
        return why(watched)

    async def _start(self, connection: Connection, telemetry: Telemetry) -> set[asyncio.Future[None]]:
        """Load the model, connect to NATS, subscribe. Returns the tasks whose end stops the daemon."""
        settings = self._settings
        self._queue = queue = await self._load()
        await connection.open()
        self._connection = connection
        self._publisher = publisher = Publisher(connection, queue.capacity + 4 * settings.sessions.max_streams)
        self._publishing = asyncio.create_task(publisher.run())
        answering = self._recordings(queue, telemetry, connection)
        control = None if self._swap is None else Control(incoming.model_control_of(settings.subject), self._swap)
        requests = RequestService(connection, answering, __version__, self._read_state, control)
        if self._swap is not None:
            self._swap.afterwards = requests.follow_model
        running = Running(
            connection=connection,
            publisher=publisher,
            queue=queue,
            make_parts=partial(self._parts, queue, connection, publisher, telemetry),
            capacity=lambda: capacity.carried(self._measured),
            requests=requests,
            worker=self._worker,
        )
        watched = await self._mode.start(running, self._enter)
        self._enter(State.READY)
        where = {"subject": settings.subject, "nats": settings.broker.address, "health_port": self._health.port}
        log.info("ready", extra=where)
        return {self._publishing, *watched}

    async def _shut_down(self, grace: Grace) -> None:
        """Undo the start, or as much of it as was done, in this order."""
        # 1. Answer 503 at /readyz, and stop swapping models.
        self._state = State.DRAINING
        if self._swap is not None:
            self._swap.give_up()
        if self._queue is not None:
            log.info("draining", extra={"queue_depth": self._queue.depth, "grace_secs": self._settings.shutdown_grace})
        # 2. Accept no more audio and no more requests.
        await self._step(self._mode.end_input(grace))
        # 3. Decode the queued windows. Those that there is no time for become gaps, or stay stored.
        await self._step(self._mode.settle(grace))
        # 4. Publish the results. Log those that cannot be published.
        await self._step(self._publish_rest(grace))
        # 5. Leave NATS.
        await self._step(self._disconnect())
        # 6. Close the HTTP port.
        await self._step(self._health.stop())
        # 7. Flush telemetry, under a deadline of its own.
        await self._step(self._flush_telemetry())
        self._state = State.STOPPED

    async def _step(self, step: Awaitable[object]) -> None:
        """Do one step. A failure is logged, and the next steps still run."""
        try:
            await step
        except Exception:
            log.critical("a step of the shutdown failed", exc_info=True)
            self._failed = True

    async def _publish_rest(self, grace: Grace) -> None:
        """Publish what is left. While NATS is away, wait a little, then log it instead."""
        if self._connection is None or self._publisher is None or self._publishing is None:
            return
        if not self._publishing.done() and not self._connection.lost.done():
            await within(min(grace.publishing_left, _RECONNECT_SECS), self._publisher.emptied())
        await within(0.0, self._publishing)
        for message in self._publisher.undelivered():
            body = message.payload.decode()
            log.error("not published: NATS is away", extra={"subject": message.subject, "body": body})

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _flush_telemetry(self) -> None:
        if self._telemetry is not None:
            await self._telemetry.shutdown()

    def _enter(self, state: State) -> None:
        self._state = state

    def _parts(
        self, queue: JobQueue, connection: Connection, publisher: Publisher, telemetry: Telemetry, sessions: Sessions
    ) -> Parts:
        payload, interval = lambda: connection.max_payload, round(self._settings.partial_interval * SAMPLE_RATE)
        partials = Interim(sessions, queue, publisher, self._tallies, interval=interval, max_payload=payload)
        pages = () if self._page is None else (listeners.Page(self._page.add),)
        return Parts(
            sessions=sessions,
            queue=queue,
            publisher=publisher,
            observer=telemetry,
            listeners=listeners.Listeners(listeners.Counter(self._tallies), listeners.Logger(), *pages),
            tallies=self._tallies,
            max_latency=self._settings.max_latency,
            speed=lambda: self._worker.speed,
            on_chunk=partials.offer if interval else None,
            max_payload=payload,
            multilingual=lambda: self._worker.multilingual,
        )

    async def _load(self) -> JobQueue:
        """Verify the model before native code reads it, load and measure it, derive the queue's capacity."""
        settings = self._settings
        verified = store.verify(self._model_path, settings.model_sha256)
        window = settings.sessions.stream.window_secs
        rtf = await self._worker.start(reference_speech(window), settings.rtf)
        scheduling.set_batch_scheduling()  # to the engine's thread, which runs by now and so does not inherit it
        derived = self._derived(rtf)
        queue = JobQueue(derived.jobs, self._worker.admission, self._worker.costs)
        self._worker.serve(queue)
        extra = {"model": self._worker.model, "size": verified.header.size, "threads": settings.whisper.threads}
        extra |= self._worker.passes
        log.info("model ready: %s", derived, extra=extra)
        if verified.path == store.bundled_model_path():
            log.warning(store.BUNDLED_NOTE)
        self._swap = ModelSwap(
            self._worker,
            queue,
            Models(settings.whisper.path, settings.model_sha256, pulled_models()),
            self._make_engine,
            speech=partial(reference_speech, window),
            derive=self._derived,
        )
        return queue

    def _make_engine(self, path: Path) -> Engine:
        return self._load_engine(dataclasses.replace(self._settings.whisper, path=path))

    def _derived(self, rtf: float) -> capacity.Capacity:
        """Return the queue's capacity: from the settings, or as much as L_max allows."""
        settings, self._measured = self._settings, rtf
        derived = capacity.derive(settings.max_latency, settings.sessions.stream.window_secs, rtf)
        return derived if settings.queue_capacity is None else capacity.given(settings.queue_capacity, derived)

    def _on_hang_up(self) -> None:
        if self._swap is not None:
            self._swap.reload()
        else:
            log.warning("SIGHUP: no model is loaded yet, so none can be swapped")

    def _recordings(self, queue: JobQueue, telemetry: Telemetry, connection: Connection) -> RequestHandler:
        return RequestHandler(
            queue,
            telemetry,
            listeners.Listeners(listeners.Counter(self._tallies), listeners.Logger()),
            self._tallies,
            stream_options=self._settings.sessions.stream,
            input_options=self._settings.input,
            max_latency=self._settings.max_latency,
            max_payload=lambda: connection.max_payload,
            worker=self._worker,
        )

    def _read_state(self) -> dict[str, Any]:
        return self._worker_state.read(self._queue, self._mode.sessions.active)

    def _snapshot(self) -> Snapshot:
        mode, nats, latency = self._mode, self._connection, self._settings.max_latency
        return snapshot(
            self._worker, self._queue, mode.sessions, nats, lag=mode.lag, max_latency=latency, fleet=mode.fleet
        )

    def _page_state(self) -> PageState:
        return PageState(
            state=self._not_alive() or self._not_ready() or str(self._state),
            version=__version__,
            model=self._worker.model,
            max_latency=self._settings.max_latency if not self._settings.durable else None,
            snapshot=self._snapshot(),
            streams=self._mode.sessions.active,
            lags=self._settings.durable,
        )

    def _not_alive(self) -> str | None:
        """Return what is wrong with this process, if a restart can mend it. NATS and the collector do not count."""
        if self._state is State.READY and not self._worker.alive:
            return "the Whisper thread is dead"
        return wedged(self._worker, self._settings.max_latency)

    def _not_ready(self) -> str | None:
        """Return why the daemon is not ready. A standby counts as ready, so that rolling updates do not wait for it."""
        if self._state is State.STANDING_BY:
            return None
        if self._state is not State.READY:
            return str(self._state)
        return None if self._connection is not None and self._connection.connected.is_set() else "NATS is away"
