"""A producer against a real server, and the pipe that it reads."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from harness import PATIENCE, NatsServer

from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.client.producer import Delivery, Pipe, Producer
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.errors import BrokerError, BrokerLost, RecordingError

PCM = AudioFormat(Encoding.S16LE, 8000, 2)
PIECE = bytes(range(256)) * 4  # 256 sample frames, 32 ms


@asynccontextmanager
async def producing(url: str, speed: float = 0, **options: object) -> AsyncIterator[tuple[Producer, Connection]]:
    connection = Connection(BrokerOptions(url=url, **options))
    await connection.open()
    try:
        yield Producer(connection, Delivery("s1", "run", speed, "en"), PCM), connection
    finally:
        await connection.close()


@asynccontextmanager
async def audio(url: str) -> AsyncIterator[asyncio.Queue[nats.aio.msg.Msg]]:
    """Everything that arrives on audio.>; the subscription outlives a restart of the server."""
    arrived: asyncio.Queue[nats.aio.msg.Msg] = asyncio.Queue()

    async def ignore(_error: Exception) -> None:
        pass

    client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=ignore)
    await client.subscribe("audio.>", cb=arrived.put)
    await client.flush()
    await client.flush()  # the first one's PING overtakes the subscription
    try:
        yield arrived
    finally:
        await client.close()


async def test_chunks_carry_format_session_offset_and_then_the_end(nats_server: NatsServer) -> None:
    """Every kind of source sends whole chunks in order, then `end` without audio, as the protocol asks."""

    async def live() -> AsyncIterator[bytes]:
        yield PIECE
        yield PIECE[:400]

    told: list[float] = []
    async with audio(nats_server.url) as arrived, producing(nats_server.url) as (producer, _):
        await producer.send([PIECE, PIECE[:400]], told.append)
        await producer.send(live())
        await producer.end()
        messages = [await arrived.get() for _ in range(5)]
    common = {
        "Audio-Encoding": "pcm_s16le",
        "Audio-Sample-Rate": "8000",
        "Audio-Channels": "2",
        "Audio-Session": "run",
        "Audio-Language": "en",
    }
    assert [m.data for m in messages] == [PIECE, PIECE[:400]] * 2 + [b""]
    assert [m.headers for m in messages[:4]] == [common | {"Audio-Offset": str(n)} for n in (0, 256, 356, 612)]
    assert messages[4].headers == common | {"Audio-Offset": "712", "Audio-Event": "end"}
    assert {m.subject for m in messages} == {"audio.s1"}
    assert told == [256 / 8000, 356 / 8000]
    assert producer.seconds == 712 / 8000


async def test_audio_goes_out_in_real_time_times_the_speed(nats_server: NatsServer) -> None:
    """The n-th chunk is never sent before its time."""
    sent: list[float] = []
    async with producing(nats_server.url, speed=4) as (producer, _):
        begin = time.monotonic()
        await producer.send([PIECE] * 20, lambda _: sent.append(time.monotonic() - begin))
    assert all(at >= n * 0.032 / 4 for n, at in enumerate(sent))


async def test_sending_at_full_speed_can_be_stopped_at_any_time(nats_server: NatsServer) -> None:
    """An endless source at speed 0 leaves the event loop its turn. A cancellation gets through nats-py."""
    async with producing(nats_server.url) as (producer, _):
        begun = asyncio.Event()
        sending = asyncio.create_task(producer.send(itertools.repeat(PIECE * 200), lambda _: begun.set()))
        await begun.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(sending, PATIENCE)


async def test_producer_keeps_its_chunk_while_the_server_is_away(nats_server: NatsServer) -> None:
    """When the server is back, it sends that chunk and the rest."""
    begun, gate, handed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield PIECE
        await gate.wait()
        handed.set()
        yield PIECE
        yield PIECE

    async with audio(nats_server.url) as arrived, producing(nats_server.url) as (producer, connection):
        sending = asyncio.create_task(producer.send(source(), lambda _: begun.set()))
        first = await arrived.get()
        await begun.wait()
        nats_server.kill()
        while connection.connected.is_set():  # noqa: ASYNC110 - an event that is cleared wakes nobody
            await asyncio.sleep(0)
        gate.set()
        await handed.wait()
        assert producer.seconds == 256 / 8000
        nats_server.start()
        await asyncio.wait_for(sending, PATIENCE)
        assert producer.seconds == 3 * 256 / 8000
        assert first.headers["Audio-Offset"] == "0"


async def test_end_is_sent_again_when_the_connection_breaks(nats_server: NatsServer) -> None:
    """The server goes away before it has taken the `end`. It gets it when it is back, so no session stays open."""
    async with audio(nats_server.url) as arrived, producing(nats_server.url) as (producer, connection):
        await producer.send([PIECE])
        assert (await arrived.get()).data == PIECE
        nats_server.freeze()
        ending = asyncio.create_task(producer.end())
        await asyncio.sleep(0)
        nats_server.kill()
        nats_server.start()
        await asyncio.wait_for(ending, PATIENCE)
        assert connection.reconnects == 1
        heard = await asyncio.wait_for(arrived.get(), PATIENCE)
        assert (heard.data, heard.headers["Audio-Event"]) == (b"", "end")


async def test_a_server_that_is_gone_for_good_is_an_error(nats_server: NatsServer) -> None:
    """`BrokerLost` names the address and the time it was given. There is no endless wait."""
    begun = asyncio.Event()
    async with producing(nats_server.url, reconnect_timeout=0.1) as (producer, _):
        sending = asyncio.create_task(producer.send(itertools.repeat(PIECE), lambda _: begun.set()))
        await begun.wait()
        nats_server.kill()
        with pytest.raises(BrokerLost, match=f"{nats_server.url}: lost"):
            await asyncio.wait_for(sending, PATIENCE)
        with pytest.raises(BrokerLost):
            await producer.end()


async def test_a_forbidden_stream_is_told_at_the_first_chunk(tmp_path: Path) -> None:
    """The error does not come after an hour of audio that nobody got."""
    config = 'authorization { users = [{user: u, password: p, permissions: {publish: "audio.other"}}] }'
    with NatsServer(tmp_path, config=config) as server:
        async with producing(server.url, user="u", password="p") as (producer, _):
            with pytest.raises(BrokerError, match=r"(?i)permissions violation.*audio\.s1"):
                await producer.send(itertools.repeat(PIECE))
    assert producer.seconds == 256 / 8000


async def test_oversized_chunk_is_refused_and_the_connection_goes_on(
    nats_server: NatsServer,
) -> None:
    """Headers count too. The error has both sizes."""
    async with producing(nats_server.url) as (producer, connection):
        limit = connection.max_payload
        with pytest.raises(
            RecordingError, match=rf"^a chunk of \d+ bytes: more than the server's max_payload of {limit}"
        ):
            await producer.send([bytes(limit - 8)])
        await producer.send([PIECE])
        await connection.confirm()


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    """A pipe's reading and writing end."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)
    for thread in threading.enumerate():  # the descriptor may mean something else as soon as it is closed
        if thread.name == "pipe":
            thread.join(PATIENCE)
    os.close(reading)


async def test_a_pipe_is_read_in_the_sizes_asked_for(ends: tuple[int, int]) -> None:
    """The writer's own sizes do not matter. What was put back comes first, and the end stays the end."""
    reading, writing = ends
    pipe = Pipe(reading, "pipe")
    for part in (b"ab", b"c", b"defgh"):
        os.write(writing, part)
    assert await pipe.read(4) == b"abcd"
    pipe.put_back(b"d")
    assert await pipe.read(2) == b"de"
    os.dup2(reading, writing)  # closes the writing end
    assert await pipe.rest() == b"fgh"
    assert await pipe.some() == b""
    assert await pipe.read(9) == b""


async def test_a_silent_pipe_does_not_stop_the_event_loop(ends: tuple[int, int]) -> None:
    """Everything else goes on while the writer is silent. A reader that stops waiting can come back."""
    reading, writing = ends
    pipe = Pipe(reading, "pipe")
    waiting = asyncio.create_task(pipe.read(2))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})
    os.write(writing, b"xy")
    assert await asyncio.wait_for(pipe.read(2), PATIENCE) == b"xy"


async def test_a_pipe_never_holds_more_than_its_bound(ends: tuple[int, int]) -> None:
    """A writer that is too fast waits, as with any pipe. All its data comes through."""
    reading, writing = ends
    pipe = Pipe(reading, "pipe")
    body = os.urandom(20 * 1024 * 1024)

    def write() -> None:
        with os.fdopen(os.dup(writing), "wb") as file:
            file.write(body)

    written = asyncio.create_task(asyncio.to_thread(write))
    got = bytearray()
    while len(got) < len(body):
        got += await pipe.some()
    await written
    assert got == body


async def test_unreadable_descriptor_is_an_error_with_its_name(tmp_path: Path) -> None:
    """A directory as standard input, for example."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(RecordingError, match=r"^standard input: is a directory$"):
            await Pipe(descriptor, "standard input").some()
    finally:
        os.close(descriptor)
