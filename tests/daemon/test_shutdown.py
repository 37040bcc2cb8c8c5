"""SIGTERM at any moment, with anything away: the daemon settles what it has and exits in time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from harness import QUICK, STUB, Client, Daemon, NatsServer, Speech, check_tiles, s16
from otlp import nobody

from transcriber import settings
from transcriber.broker.live import LiveSource
from transcriber.broker.requests import RequestService
from transcriber.daemon.modes import LiveMode
from transcriber.daemon.running import Running
from transcriber.daemon.state import Grace
from transcriber.domain.chunks import AudioFormat, Chunk, DroppedChunk, Encoding
from transcriber.domain.measurements import Tallies
from transcriber.pipeline.live import LivePipeline

GRACE = 10.0  # seconds
AFTER = 3.0  # seconds beyond the grace period that closing NATS (1) and telemetry (2) may take
CHUNK = 1600 * 2  # bytes: 100 ms
RATE = {"AUDIO_SAMPLE_RATE": "16000"}
STUCK = RATE | QUICK | {"STUB_SECS": "3600", "STUB_WARM_SECS": "0"}  # an engine that takes a window for ever


@contextlib.asynccontextmanager
async def speaking(client: Client, speech: Speech, stream: str, pause: float = 0.002) -> AsyncIterator[list[int]]:
    """A producer that publishes speech over and over, 100 ms every `pause` seconds, until it is left.

    Yields the offsets of what it has published.
    """
    pcm = s16(speech.samples)
    sent: list[int] = []

    async def produce() -> None:
        while True:
            for start in range(0, len(pcm) - CHUNK, CHUNK):
                offset = len(sent) * CHUNK // 2
                await client.send(
                    pcm[start : start + CHUNK], subject=f"audio.{stream}", audio_session="run", audio_offset=offset
                )
                sent.append(offset)
                await asyncio.sleep(pause)  # the pace is the point

    producing = asyncio.create_task(produce())
    try:
        yield sent
    finally:
        producing.cancel()
        await asyncio.gather(producing, return_exceptions=True)


async def published(client: Client, sent: list[int], chunks: int) -> None:
    """Wait until the server has so many chunks."""
    while len(sent) < chunks:
        await client.flush()
    await client.flush()


async def stopped(daemon: Daemon, limit: float) -> float:
    """Send SIGTERM, and see the process exit with 0 within `limit` seconds. Returns the seconds it took."""
    begin = time.monotonic()
    daemon.terminate()
    assert await daemon.ended(limit + 10) == 0
    took = time.monotonic() - begin
    assert took <= limit, daemon.records[-5:]
    assert daemon.stderr == ""
    return took


def check_summary(daemon: Daemon, ended: dict[str, Any], windows: int) -> None:
    """The last line tells what the run did, as the published account does."""
    summary = daemon.summary
    assert daemon.records[-1] is summary
    assert summary["seconds"]["pending"] == 0
    assert summary["queue_depth"] <= 1  # a window that is still in the engine
    assert windows - summary["jobs_dropped"] <= summary["jobs_enqueued"] <= windows
    told = {k: ended[k] for k in ("received", "transcribed", "silent")} | ended["gap"]
    for fate, seconds in told.items():
        assert summary["seconds"].get(fate, 0) == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize("daemons", [6, pytest.param(30, marks=pytest.mark.slow)])
async def test_sigterm_at_any_moment_settles_and_reports_everything(
    nats_server: NatsServer, client: Client, heldout: Speech, bundled_folder: Path, daemons: int
) -> None:
    """Daemons are stopped at random in mid-speech, with both engines and with one that cannot keep up."""
    moments = random.Random(daemons)
    times: list[float] = []
    depths: list[int] = []
    reasons: set[str] = set()
    for number in range(daemons):
        stream = f"m{number}"
        lagging = {"script": STUB, "STUB_SECS": moments.choice(["0.1", "0.3"])} if number % 2 else {}
        environ = {"SHUTDOWN_GRACE_SECS": str(GRACE), "AUDIO_SUBJECT": f"audio.{stream}"} | QUICK | RATE
        if number % 4 == 2:
            environ["WHISPER_MODEL_PATH"] = str(bundled_folder)  # for CTranslate2
        async with Daemon(nats_server.url, **environ, **lagging) as daemon, speaking(client, heldout, stream) as sent:
            moment = moments.randint(1, 300)
            await published(client, sent, moment)
            times.append(await stopped(daemon, GRACE))
            depths.append((await daemon.logged("draining"))["queue_depth"])
            ended = await client.until_type("ended", stream=stream)
        assert len(client.of("started", "ended", stream=stream)) == 2
        check_tiles(client.heard, ended)
        assert moment * CHUNK // 2 <= round(ended["received"] * 16000) <= sent[-1] + CHUNK // 2
        check_summary(daemon, ended, len(client.of("final", "gap", stream=stream)))
        reasons |= {gap["reason"] for gap in client.of("gap", stream=stream)}
    logging.getLogger(__name__).info("longest exit of %d: %.2f s", len(times), max(times))
    assert reasons <= {"queue_full", "deadline"}
    assert max(depths[::2]) > 0  # windows in the model
    assert max(depths[1::2]) > 1  # and waiting for a slow engine


async def test_draining_is_visible_and_a_second_signal_ends_it_at_once(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """From the first SIGTERM /readyz says 503 and /livez 200. The second one ends the process with 128 + 15."""
    async with Daemon(nats_server.url, script=STUB, **STUCK, SHUTDOWN_GRACE_SECS="3600") as daemon:
        assert await daemon.probe("/readyz") == 200
        async with speaking(client, heldout, "s1") as sent:
            await published(client, sent, 100)
        daemon.terminate()
        await daemon.logged("draining")
        assert await daemon.probe("/readyz") == 503
        assert await daemon.probe("/livez") == 200
        begin = time.monotonic()
        daemon.terminate()
        assert await daemon.ended() == 128 + 15
        assert time.monotonic() - begin < 1


async def test_windows_past_the_grace_period_become_gaps(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """The queue is longer than the grace period.

    Windows in time become finals, the rest gap(shutdown), and exit is 0.
    """
    slow = RATE | QUICK | {"STUB_SECS": "0.4", "SHUTDOWN_GRACE_SECS": "1"}
    async with Daemon(nats_server.url, script=STUB, **slow) as daemon:
        async with speaking(client, heldout, "s1", pause=0) as sent:
            await published(client, sent, 400)
        await stopped(daemon, 1 + AFTER)
        ended = await client.until_type("ended")
    check_tiles(client.heard, ended)
    assert client.of("final")
    assert ended["gap"].keys() == {"shutdown"}
    assert len(client.of("gap")) == daemon.summary["jobs_dropped"] > 1
    check_summary(daemon, ended, len(client.of("final", "gap")))
    assert not [r for r in daemon.records if r["message"].startswith("not published")]


async def test_zero_grace_turns_all_undecoded_audio_into_gaps(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """SHUTDOWN_GRACE_SECS=0 in mid-burst leaves no time to decode. The account is whole, and every session ends."""
    async with Daemon(nats_server.url, script=STUB, **STUCK, SHUTDOWN_GRACE_SECS="0") as daemon:
        async with speaking(client, heldout, "s1", pause=0) as sent:
            await published(client, sent, 1000)
        await stopped(daemon, 1)
        ended = await client.until_type("ended")
    check_tiles(client.heard, ended)
    assert ended["transcribed"] == 0
    assert ended["gap"].keys() <= {"shutdown", "lag", "queue_full"}


async def test_buffered_chunks_count_without_audio_when_time_is_up(nats_server: NatsServer) -> None:
    """Chunks still in the source's buffer when time is up reach the account before sessions end."""
    mode = LiveMode(settings.load({"NATS_URL": nats_server.url}), Tallies())
    chunk = Chunk("s1", AudioFormat(Encoding.S16LE, 16000, 1), b"")
    source, requests, pipeline = AsyncMock(LiveSource), AsyncMock(RequestService), Mock(LivePipeline)
    source.rest.return_value = [DroppedChunk(chunk, 160), DroppedChunk(chunk, 320)]
    ingesting = asyncio.create_task(asyncio.Event().wait())
    others = {name: Mock() for name in ("connection", "publisher", "queue", "make_parts", "capacity", "worker")}
    mode._running = Running(requests=requests, **others)
    mode._source, mode._pipeline, mode._ingesting = source, pipeline, ingesting
    await mode.end_input(Grace(0.0))
    assert [call[0] for call in pipeline.mock_calls] == ["receive", "receive", "end_all"]
    assert pipeline.receive.call_args_list[1].args[0].frames == 320
    assert ingesting.cancelled()


@pytest.mark.parametrize("deaf", ["0", "1"])
async def test_a_window_stuck_in_the_engine_does_not_hold_up_the_exit(
    nats_server: NatsServer, client: Client, heldout: Speech, deaf: str
) -> None:
    """The engine never comes back, whether or not it can be stopped. Its window becomes gap(shutdown).

    The session ends, and so does the process.
    """
    async with Daemon(nats_server.url, script=STUB, **STUCK, STUB_DEAF=deaf, SHUTDOWN_GRACE_SECS="1") as daemon:
        async with speaking(client, heldout, "s1") as sent:
            await published(client, sent, 100)
        await stopped(daemon, 1 + AFTER)
        ended = await client.until_type("ended")
    check_tiles(client.heard, ended)
    assert ended["transcribed"] == 0
    assert ended["gap"].keys() == {"shutdown"}


@pytest.mark.parametrize("listening", [False, True])
async def test_a_collector_that_is_away_costs_two_seconds_at_most(
    nats_server: NatsServer, client: Client, heldout: Speech, listening: bool
) -> None:
    """The collector refuses connections or never answers. Everything is published, and exit 0 comes in time."""
    with nobody(listening=listening) as endpoint:
        environ = RATE | QUICK | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "SHUTDOWN_GRACE_SECS": "2"}
        async with Daemon(nats_server.url, **environ) as daemon, speaking(client, heldout, "s1") as sent:
            await published(client, sent, 50)
            await stopped(daemon, 2 + AFTER)
            ended = await client.until_type("ended")
    check_tiles(client.heard, ended)


@pytest.mark.parametrize("away", ["killed", "frozen"])
async def test_results_are_in_the_log_when_nats_is_away(
    nats_server: NatsServer, client: Client, heldout: Speech, away: str
) -> None:
    """The server is dead or deaf at SIGTERM. Exit 0 comes in time, and the log has all that was not published."""
    slow = RATE | QUICK | {"STUB_SECS": "0.2", "SHUTDOWN_GRACE_SECS": "3", "STATUS_INTERVAL_SECS": "600"}
    async with Daemon(nats_server.url, script=STUB, **slow) as daemon:
        async with speaking(client, heldout, "s1") as sent:
            await published(client, sent, 150)
        await client.until_type("final")
        nats_server.freeze() if away == "frozen" else nats_server.kill()  # for good: nothing more will be heard
        await stopped(daemon, 3 + AFTER)
    told = [json.loads(r["body"]) for r in daemon.records if "not published" in r["message"]]
    heard = client.heard + [body for body in told if body not in client.heard]  # some "perhaps not"
    (ended,) = [body for body in heard if body["type"] == "ended"]
    check_tiles(heard, ended)
    assert [body for body in heard if body["type"] == "final"] != client.of("final")


@pytest.mark.parametrize("away", ["killed", "frozen"])
async def test_exit_is_in_time_with_engine_nats_and_collector_stuck(
    nats_server: NatsServer, client: Client, heldout: Speech, away: str
) -> None:
    """The collector swallows everything, the broker is gone, and the engine never comes back from its window."""
    with nobody(listening=True) as endpoint:
        environ = STUCK | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "SHUTDOWN_GRACE_SECS": "2"}
        async with Daemon(nats_server.url, script=STUB, **environ) as daemon:
            async with speaking(client, heldout, "s1") as sent:
                await published(client, sent, 100)
            await client.until_type("started")
            nats_server.freeze() if away == "frozen" else nats_server.kill()
            await stopped(daemon, 2 + AFTER)
    told = [json.loads(r["body"]) for r in daemon.records if "not published" in r["message"]]
    heard = client.heard + [body for body in told if body not in client.heard]
    (ended,) = [body for body in heard if body["type"] == "ended"]
    check_tiles(heard, ended)
    assert ended["gap"].keys() == {"shutdown"}


async def test_results_reach_a_server_that_returns_while_draining(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """NATS restarts in the grace period. Waiting results are published after all, and none is left for the log."""
    slow = RATE | QUICK | {"STUB_SECS": "0.1", "STATUS_INTERVAL_SECS": "600"}
    async with Daemon(nats_server.url, script=STUB, **slow) as daemon:
        async with speaking(client, heldout, "s1") as sent:
            await published(client, sent, 150)
        await client.until_type("started")
        nats_server.kill()
        await daemon.logged("NATS disconnected")
        daemon.terminate()
        await daemon.logged("draining")
        with daemon.frozen():  # or it is back before the listener is, which misses what it then publishes
            nats_server.start()
            await client.back()
        ended = await client.until_type("ended")
        assert await daemon.ended() == 0
    told = [json.loads(r["body"]) for r in daemon.records if r["message"].startswith("perhaps not published")]
    check_tiles(client.heard + [body for body in told if body not in client.heard], ended)
    assert not [r for r in daemon.records if r["message"] == "not published: NATS is away"]


SLOW_RESOLVER = """
import socket, time
resolve = socket.getaddrinfo
def getaddrinfo(host, *more, **named):
    if host == "nats.invalid":
        print('{"message": "resolving"}', flush=True)
        time.sleep(3600)
    return resolve(host, *more, **named)
socket.getaddrinfo = getaddrinfo
from transcriber.cli.main import main
main(["run"])
"""


@pytest.mark.parametrize("phase", ["loading", "measuring", "resolving", "connecting", "greeting"])
async def test_a_start_can_be_interrupted(nats_server: NatsServer, tmp_path: Path, phase: str) -> None:
    """SIGTERM ends the process with 0 while the model loads, and while NATS is away, deaf or not even an address."""
    environ = {"STUB_SECS": "3600" if phase == "measuring" else "0", "WHISPER_RTF": "0.05"}
    script = {"loading": None, "resolving": tmp_path / "resolving.py"}.get(phase, STUB)
    (tmp_path / "resolving.py").write_text(SLOW_RESOLVER)
    url = "nats://nats.invalid" if phase == "resolving" else nats_server.url
    if phase == "connecting":
        nats_server.kill()
    elif phase == "greeting":
        nats_server.freeze()
    reached = {"resolving": "resolving", "connecting": "NATS: ", "greeting": "model ready"}.get(phase, "starting")
    async with Daemon(url, script=script, wait=False, **environ) as daemon:
        await daemon.logged(reached)
        await stopped(daemon, 2)
        assert daemon.summary["jobs_enqueued"] == 0
