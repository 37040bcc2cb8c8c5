"""The live source without a server: what it does when more arrives than is taken."""

from __future__ import annotations

from itertools import count, islice
from typing import Any

from transcriber.broker.live import LiveSource
from transcriber.domain.chunks import Arrival, Chunk, ChunkEvent, DroppedChunk, MalformedMessage
from transcriber.protocol import incoming


class FakeSubscription:
    def __init__(self) -> None:
        self.calls: list[str] = []

    async def drain(self) -> None:
        self.calls.append("drain")

    async def unsubscribe(self) -> None:
        self.calls.append("unsubscribe")


class FakeConnection:
    """A stand-in for the connection: keeps what the source subscribes with."""

    def __init__(self) -> None:
        self.up = True
        self.subscription = FakeSubscription()

    async def hand_over(self, _subject: str, take: Any) -> FakeSubscription:
        self.deliver = take
        return self.subscription


async def source(buffer_bytes: int = 1000) -> tuple[LiveSource, FakeConnection]:
    connection = FakeConnection()
    live = LiveSource(connection, "audio.*", incoming.InputOptions(), buffer_bytes)  # type: ignore[arg-type]
    await live.start()
    return live, connection


async def taken(live: LiveSource) -> list[Arrival]:
    live.end()
    return [arrival async for arrival in live.arrivals()]


def message(payload: bytes = b"", subject: str = "audio.s1", **headers: str) -> tuple[bytes, bytes, bytes]:
    lines = [f"{name.title().replace('_', '-')}: {value}" for name, value in headers.items()]
    block = "\r\n".join(["NATS/1.0", *lines, "", ""]) if lines else ""
    return subject.encode(), block.encode(), payload


async def test_arrivals_are_given_out_in_order_until_the_end() -> None:
    """Chunks and refusals keep their order. After `end` the rest is still given out."""
    live, connection = await source()
    for arrival in (message(b"ab"), message(b"abc", audio_session="x"), message(b"cd"), message(b"", "audio.ä")):
        connection.deliver(*arrival)
    first, odd, second, nameless = await taken(live)
    assert isinstance(first, Chunk)
    assert isinstance(second, Chunk)
    assert isinstance(odd, MalformedMessage)
    assert isinstance(nameless, MalformedMessage)
    assert (first.pcm, second.pcm) == (b"ab", b"cd")
    assert (odd.stream, odd.session, odd.rejection.reason) == ("s1", "x", "partial_frame")
    assert (nameless.stream, nameless.rejection.reason) == (None, "stream")


async def test_a_full_buffer_gives_up_audio_but_not_its_bounds() -> None:
    """Over the limit a chunk becomes a `DroppedChunk` with session, offset, length and event.

    Below it, chunks come again.
    """
    live, connection = await source(buffer_bytes=100)
    for start in range(0, 150, 50):
        connection.deliver(*message(bytes(100), audio_session="x", audio_offset=str(start)))
    connection.deliver(*message(b"abc"))
    connection.deliver(*message(bytes(2), audio_event="end"))
    kept, given_up, odd, last = await taken(live)
    assert isinstance(kept, Chunk)
    assert isinstance(given_up, DroppedChunk)
    assert (given_up.chunk.offset, given_up.frames, given_up.chunks, given_up.chunk.pcm) == (50, 100, 2, b"")
    assert isinstance(odd, MalformedMessage)
    assert isinstance(last, DroppedChunk)
    assert (last.frames, last.chunk.event) == (1, ChunkEvent.END)
    connection.deliver(*message(bytes(100)))
    (again,) = await taken(live)
    assert isinstance(again, Chunk)


async def test_full_buffer_makes_one_hole_a_stream_until_half_empty() -> None:
    """Losing every second chunk of every stream would cost more than the audio itself."""
    live, connection = await source(buffer_bytes=1000)
    arrivals = live.arrivals()
    numbers = count()

    def deliver(rounds: int) -> None:
        for number in islice(numbers, rounds):
            for subject in ("audio.s1", "audio.s2"):
                connection.deliver(*message(bytes(100), subject, audio_session="x", audio_offset=str(50 * number)))

    deliver(20)  # half of which fits
    kept = [await anext(arrivals) for _ in range(4)]
    deliver(3)  # 600 bytes are still waiting
    kept += [await anext(arrivals) for _ in range(6)]
    assert all(isinstance(chunk, Chunk) for chunk in kept)
    deliver(1)
    live.end()
    rest = [arrival async for arrival in arrivals]
    holes = [arrival for arrival in rest if isinstance(arrival, DroppedChunk)]
    assert [(s.chunk.stream, s.chunk.offset, s.frames, s.chunks) for s in holes] == [
        ("s1", 250, 900, 18),
        ("s2", 250, 900, 18),
    ]
    assert [(c.stream, c.offset) for c in rest if isinstance(c, Chunk)] == [("s1", 1150), ("s2", 1150)]


async def test_an_event_without_audio_is_not_given_up() -> None:
    """It needs no room, and without it a session would stay open. The hole before it ends there."""
    live, connection = await source(buffer_bytes=100)
    for offset in ("0", "50", "100"):
        connection.deliver(*message(bytes(100), audio_session="x", audio_offset=offset))
    connection.deliver(*message(audio_session="x", audio_event="flush"))
    connection.deliver(*message(bytes(100), audio_session="x", audio_offset="150"))
    _, hole, flush, another = await taken(live)
    assert isinstance(hole, DroppedChunk)
    assert isinstance(flush, Chunk)
    assert isinstance(another, DroppedChunk)
    assert (hole.frames, flush.event, another.frames) == (100, ChunkEvent.FLUSH, 50)


async def test_rest_gives_out_untaken_chunks_with_their_bounds() -> None:
    """`rest` gives them out once, without their audio."""
    live, connection = await source()
    connection.deliver(*message(bytes(100), audio_offset="7"))
    connection.deliver(*message(b"abc"))
    chunk, odd = live.rest()
    assert isinstance(chunk, DroppedChunk)
    assert isinstance(odd, MalformedMessage)
    assert (chunk.chunk.offset, chunk.frames) == (7, 50)
    assert await taken(live) == []


async def test_stop_drains_while_connected_and_otherwise_unsubscribes() -> None:
    """Without NATS, a kept subscription would come back with the connection and fill a buffer that nobody reads."""
    live, connection = await source()
    await live.stop()
    connection.up = False
    await live.stop()
    assert connection.subscription.calls == ["drain", "unsubscribe"]
