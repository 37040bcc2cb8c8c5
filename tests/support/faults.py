"""Real faults of a real daemon, each made to last for as long as the test waits for the alerts that are due."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import fleets
import soxr
from alerting import Prometheus, doctored
from chaos import jetstream_server, publish, set_up_streams
from fleets import set_up_fleet
from flooding import flood
from harness import STUB, Client, Daemon, NatsServer, Speech, free_port, s16
from radio import Radio

RATE = {"AUDIO_SAMPLE_RATE": "16000"}
QUICK = {"WHISPER_RTF": "0.05"} | RATE
MEMBER = {"FLEET": fleets.FLEET.name, "WHISPER_RTF": "0.05"}


@dataclass
class Site:
    """The parts that a fault may use. `target` is the port that Prometheus scrapes. Tasks end with the site."""

    folder: Path
    speech: Speech
    prometheus: Prometheus
    target: int
    stack: contextlib.AsyncExitStack
    tasks: list[asyncio.Task[object]] = field(default_factory=list)

    def server(self, *, stored: bool = False) -> NatsServer:
        made = jetstream_server(self.folder) if stored else NatsServer(self.folder / "nats")
        return self.stack.enter_context(made)

    async def daemon(self, url: str, port: int | None = None, *, wait: bool = True, **environ: str) -> Daemon:
        """A daemon on the scraped port, around the stub engine if any of its settings is given."""
        script = STUB if any(name.startswith("STUB_") for name in environ) else None
        scraped = {"OTEL_METRICS_EXPORTER": "prometheus", "HEALTH_PORT": str(port or self.target)}
        return await self.stack.enter_async_context(Daemon(url, script=script, wait=wait, **scraped, **environ))

    async def client(self, url: str) -> Client:
        return await self.stack.enter_async_context(Client(url))

    def keep(self, work: Awaitable[object]) -> None:
        """Go on with this while the test waits."""
        self.tasks.append(asyncio.ensure_future(work))

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self.tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError | int), outcome


async def talk(client: Client, speech: Speech) -> None:
    """Speech in real time, for ever."""
    for turn in itertools.count():
        pcm = s16(speech.samples)
        for start in range(0, len(pcm), 3200):
            await client.send(pcm[start : start + 3200], audio_session=f"turn-{turn}", audio_offset=start // 2)
            await asyncio.sleep(0.1)


async def overload(site: Site) -> None:
    server = site.server()
    client = await site.client(server.url)
    await site.daemon(server.url, STUB_SECS="0.4", TRANSCRIPTION_MAX_LATENCY_SECS="6")
    site.keep(flood(client, s16(soxr.resample(site.speech.samples, site.speech.rate, 48_000, "HQ")), 600))


async def slow_engine(site: Site) -> None:
    server = site.server(stored=True)
    await set_up_streams(server.url)
    settings = {"AUDIO_SOURCE": "jetstream", "WHISPER_RTF": "0.05", "TRANSCRIPTION_MAX_LATENCY_SECS": "1"}
    await site.daemon(server.url, STUB_SECS="0.8", STUB_WARM_SECS="0", **settings)
    site.keep(publish(server.url, site.speech))


async def hung_partial(site: Site) -> None:
    server = site.server()
    client = await site.client(server.url)
    await site.daemon(server.url, STUB_HANGS_AT="2", **QUICK)
    site.keep(talk(client, site.speech))


async def hung_window(site: Site) -> None:
    server = site.server()
    client = await site.client(server.url)
    await site.daemon(server.url, STUB_HANGS_AT="3", PARTIAL_INTERVAL_SECS="0", **QUICK)
    site.keep(talk(client, site.speech))


async def killed(site: Site) -> None:
    """Each time as soon as Prometheus has scraped the process three times, until it has seen three restarts."""
    server = site.server()
    restarts = f"resets(process_uptime_seconds[{site.prometheus.seconds(30)}s])"
    while not await site.prometheus.query(f"{restarts} >= 3"):
        daemon = await site.daemon(server.url, wait=False, STUB_SECS="0", **QUICK)
        begin, ages = time.monotonic(), set[float]()
        while len(ages) < 3:
            await asyncio.sleep(0.1)
            found = (await site.prometheus.query("process_uptime_seconds")).values()
            ages |= {age for age in found if age < time.monotonic() - begin + 0.5}  # older ones are of the last process
        daemon.process.kill()
        await daemon.process.wait()


async def silent_producer(site: Site) -> None:
    server = site.server()
    client = await site.client(server.url)
    await site.daemon(server.url, **QUICK)
    await Radio(client, site.speech.cut(0, 2)).play(0.1)


async def dead_server(site: Site) -> None:
    server = site.server()
    await site.daemon(server.url, **QUICK)
    await site.prometheus.until_seen("transcriber_nats_connected_ratio == 1")
    server.kill()


async def flapping_server(site: Site) -> None:
    server = site.server()
    daemon = await site.daemon(server.url, **QUICK)
    await site.prometheus.until_seen("transcriber_nats_reconnects_total")

    async def again() -> None:
        while True:
            server.kill()
            await site.prometheus.until_seen("transcriber_nats_connected_ratio == 0")
            server.start()
            await site.prometheus.until_seen("transcriber_nats_connected_ratio == 1")

    assert daemon.process.returncode is None
    site.keep(again())


async def miscount(site: Site) -> None:
    server = site.server()
    client = await site.client(server.url)
    port = free_port()
    await site.daemon(server.url, port, **QUICK)
    await site.stack.enter_async_context(doctored(site.target, port, seconds=10))
    site.keep(talk(client, site.speech))


async def drained_fleet(site: Site) -> None:
    server = site.server(stored=True)
    await set_up_fleet(server.url, live=True)
    await site.daemon(server.url, **MEMBER)
    other = await site.daemon(server.url, free_port(), **MEMBER)
    seen = await fleets.status(server.url)
    mine = next(m["name"] for m in seen["members"] if m["name"].endswith(f"-{site.target}"))
    code, said = await fleets.transcriber(server.url, "fleet", "drain", mine)
    assert code == 0, said
    await site.prometheus.until_seen("transcriber_fleet_partitions == 0")
    other.process.kill()


async def full_fleet(site: Site) -> None:
    server = site.server(stored=True)
    await set_up_fleet(server.url, live=True)
    client = await site.client(server.url)
    await site.daemon(server.url, **MEMBER | {"WHISPER_RTF": "0.6"})
    site.keep(_for_ever(lambda: fleets.play(client, site.speech, "s1")))


async def _for_ever(make: Callable[[], Awaitable[object]]) -> None:
    while True:
        await make()


async def restless_fleet(site: Site) -> None:
    server = site.server(stored=True)
    await set_up_fleet(server.url, live=True)
    await site.daemon(server.url, **MEMBER)

    async def again() -> None:
        while True:
            other = await site.daemon(server.url, free_port(), **MEMBER)
            await site.prometheus.until_seen("transcriber_fleet_partitions < 40")
            other.process.kill()
            await site.prometheus.until_seen("transcriber_fleet_partitions == 64")

    site.keep(again())


@dataclass(frozen=True)
class Fault:
    """A fault, the alerts that must fire for it, and the others that may."""

    make: Callable[[Site], Awaitable[None]]
    words: str  # as in the runbook's table
    due: tuple[str, ...]
    may: tuple[str, ...] = ()
    minute: int = 1  # seconds that a minute of the rules takes


FAULTS = (
    Fault(overload, "speech at twenty times real time", ("TranscriberSaturated", "TranscriberDropping")),
    Fault(
        slow_engine,
        "durable mode, an engine three times slower than its queue was made for",
        ("TranscriberLate", "TranscriberLagging"),
        ("TranscriberSaturated",),
    ),
    Fault(hung_partial, "the engine never returns from a partial of an open window", ("TranscriberStarved",)),
    Fault(hung_window, "the engine never returns from a window", ("TranscriberWedged",)),
    # A process takes its seconds to start, and more on a busy machine: three of them must fit into the window.
    Fault(killed, "`kill -9` of the daemon, again and again", ("TranscriberRestarting",), minute=3),
    Fault(silent_producer, "the producer stops", ("TranscriberNoAudio",)),
    Fault(dead_server, "`kill -9` of the NATS server", ("TranscriberDisconnected",)),
    Fault(
        flapping_server,
        "`kill -9` of the NATS server and a new one, again and again",
        ("TranscriberReconnecting",),
        ("TranscriberDisconnected",),
    ),
    Fault(
        miscount,
        "a stand-in exporter adds ten seconds to what was received (no real defect is known)",
        ("TranscriberUnaccounted",),
    ),
    Fault(
        drained_fleet,
        "the one member that was not draining is killed",
        ("TranscriberFleetOrphaned",),
        ("TranscriberFleetFull",),
    ),
    Fault(full_fleet, "a stream, and a fleet that can carry one", ("TranscriberFleetFull",)),
    Fault(
        restless_fleet,
        "another member is killed and started, again and again",
        ("TranscriberFleetRestless",),
        minute=3,
    ),
)
