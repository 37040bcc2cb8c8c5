"""A client's stream through the gateway, with the test as the daemon: credit, order, slow readers, loss, the end."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from command import Bus, bus
from gateways import gateway, worker
from harness import PATIENCE, NatsServer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from transcriber.broker import direct
from transcriber.gateway import bridge
from transcriber.gateway import socket as gateway_socket
from transcriber.gateway.dialects.openai_realtime import Realtime
from transcriber.gateway.service import Gateway

SECOND = bytes(32_000)  # of 16 kHz s16 mono
NETWORK_BYTES = 46_080  # what Linux holds of a sender in a network with packets of 1500 bytes; on loopback it is 2.6 MB


@pytest.fixture
async def serving(nats_server: NatsServer) -> AsyncIterator[Gateway]:
    async with worker(nats_server.url), gateway(nats_server.url) as running:
        yield running


@asynccontextmanager
async def plain(serving: Gateway, query: str = "eager", **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://127.0.0.1:{serving.port}/plain?{query}", **options) as client:
        yield client


async def told(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of this type."""
    async with asyncio.timeout(PATIENCE):
        async for text in client:
            if (message := json.loads(text))["type"] == kind:
                return message
    raise AssertionError(f"closed without {kind}: {client.close_code}")


def of(message: Any) -> dict[str, str]:
    """Where a message for a stream goes."""
    return {"stream": message.subject.partition(".")[2], "session": message.headers["Audio-Session"]}


ACCOUNT = {"transcribed": 0.0, "silent": 0.0, "gap": {}, "pending": 0.0}


async def test_chunks_carry_what_the_wire_protocol_asks(serving: Gateway, heard: Bus) -> None:
    """Format, session, offset and tenant on every one; the stream is the client's own; the trace is passed on."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with plain(serving, "eager&speech", additional_headers={"traceparent": trace}) as client:
        for _ in range(2):
            await client.send(SECOND)
        first, second = await heard.next(), await heard.next()
    assert first.headers == {
        "Audio-Encoding": "pcm_s16le",
        "Audio-Sample-Rate": "16000",
        "Audio-Channels": "1",
        "Audio-Session": "1",
        "Audio-Tenant": "anyone",
        "Audio-Timeout": "30",
        "Audio-Notify": "speech",
        "traceparent": trace,
        "Audio-Offset": "0",
    }
    assert second.headers["Audio-Offset"] == "16000"
    assert first.data == second.data == SECOND
    assert first.subject == second.subject
    assert first.subject.startswith("audio.anyone-")
    assert (await heard.next()).headers["Audio-Event"] == "end"  # the client is gone


async def test_long_message_is_published_in_chunks_of_a_second(serving: Gateway, heard: Bus) -> None:
    async with plain(serving) as client:
        await client.send(SECOND * 2 + SECOND[:100])
        offsets = [(await heard.next()).headers["Audio-Offset"] for _ in range(3)]
    assert offsets == ["0", "16000", "32000"]


async def test_client_faster_than_the_workers_is_slowed(serving: Gateway, heard: Bus) -> None:
    """At most 20 s are on their way. What a worker settles makes room for more, and nothing is lost or reordered."""
    async with plain(serving) as client:
        sending = asyncio.create_task(send_all(client, 60))
        messages = [await heard.next() for _ in range(20)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                messages.append(await heard.heard.get())
        final = {"v": 1, "type": "final", **of(messages[0]), "start": 0.0, "end": 5.0, "text": "five"}
        await heard.tell(final)
        messages += [await heard.next() for _ in range(5)]
        status = {"v": 1, "type": "status", **of(messages[0]), "received": 25.0, **ACCOUNT, "silent": 20.0}
        await heard.tell(status)
        messages += [await heard.next() for _ in range(20)]
        await heard.tell(status | {"received": 45.0})
        messages += [await heard.next() for _ in range(15)]
        await sending
    assert [int(m.headers["Audio-Offset"]) for m in messages] == [16_000 * n for n in range(60)]
    assert serving.figures.pauses >= 1


async def send_all(client: ClientConnection, seconds: int, patience: float | None = None) -> None:
    for _ in range(seconds):
        async with asyncio.timeout(patience):
            await client.send(SECOND)


def reset(client: ClientConnection) -> None:
    """Be gone, as a process is that ends with audio unsent."""
    ours = client.transport.get_extra_info("socket")
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()


async def test_ping_waits_for_little_audio(serving: Gateway) -> None:
    """A client that is slowed is not read, so its pings wait for its audio: less than the 20 s that clients wait."""
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, NETWORK_BYTES)
        ours.connect(("127.0.0.1", serving.port))
        async with plain(serving, sock=ours, ping_interval=None) as client:
            with pytest.raises(TimeoutError):  # nobody settles anything
                await send_all(client, round(bridge.CREDIT_SECS) + 20, patience=2)
            assert serving.figures.pauses == 1
            reset(client)
        async with asyncio.timeout(PATIENCE):  # although it is not read, it is seen to be gone
            while serving.figures.connections:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.1)


async def test_long_messages_of_all_clients_are_bounded(serving: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may fill the memory with messages that have no end. What others hold counts, until it is gone."""
    monkeypatch.setattr(gateway_socket, "HELD_BYTES", 1_000_000)
    begun = b"\x82\xff" + (1_000_000).to_bytes(8) + bytes(4) + bytes(600_000)
    fragment = b"\x02\xff" + (600_000).to_bytes(8) + bytes(4) + bytes(600_000)
    async with plain(serving) as first, plain(serving) as second, plain(serving) as third:
        first.transport.write(begun)
        while serving.figures.held < 600_000:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        second.transport.write(fragment)
        await second.wait_closed()
        assert second.close_code == 1013
        await third.send(SECOND)
        first.transport.abort()
        while serving.figures.held:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        third.transport.write(fragment + b"\x80\x80" + bytes(4))
        await third.send("flush")
        assert third.close_code is None


async def test_realtime_append_of_15_mib_is_taken(serving: Gateway, heard: Bus) -> None:
    """OpenAI allows that much in one event. More closes the connection, and says what is allowed."""
    address, audio = f"ws://127.0.0.1:{serving.port}/v1/realtime", bytes(15 * 2**20)
    append = {"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode()}
    client = await connect(address)
    await client.send(json.dumps(append))
    offsets = [int((await heard.next()).headers["Audio-Offset"]) for _ in range(20)]
    assert offsets == [24_000 * second for second in range(20)]
    reset(client)  # to close it politely would wait until the audio is read
    async with connect(address) as client:
        client.transport.write(b"\x81\xff" + (2**25).to_bytes(8) + bytes(4))  # of a frame that is too long
        await client.wait_closed()
    allowed = Realtime.max_message
    assert (client.close_code, client.close_reason) == (
        1009,
        f"frame with {2**25} bytes exceeds limit of {allowed} bytes",
    )


async def test_next_session_is_heard_after_the_one_before(serving: Gateway, heard: Bus) -> None:
    """A worker may speak about both at a time; a dialect hears of one, and then of the other."""
    async with plain(serving, "") as client:
        for _ in range(2):
            await client.send("begin")
            await client.send(SECOND)
        first, end, second = [await heard.next() for _ in range(3)]
        assert (end.headers["Audio-Event"], of(second)["session"]) == ("end", "2")
        texts = [
            {"v": 1, "type": "final", **of(second), "start": 0.0, "end": 1.0, "text": "two"},
            {"v": 1, "type": "final", **of(first), "start": 0.0, "end": 1.0, "text": "one"},
            {"v": 1, "type": "ended", **of(first), "received": 1.0, **ACCOUNT, "transcribed": 1.0},
        ]
        await heard.tell(*texts)
        got = [json.loads(await client.recv()) for _ in range(3)]
    assert [m.get("text", m["type"]) for m in got] == ["one", "ended", "two"]


async def test_session_without_audio_is_answered_by_the_gateway(serving: Gateway, heard: Bus) -> None:
    """No worker has heard of it, so none would answer."""
    async with plain(serving) as client:
        await client.send("flush")
        await client.send("end")
        assert (await told(client, "flushed"))["end"] == 0.0
        ended = await told(client, "ended")
    assert (ended["received"], ended["pending"], ended["gap"]) == (0.0, 0.0, {})
    assert heard.heard.empty()


async def test_worker_that_leaves_is_followed_by_another(serving: Gateway, heard: Bus) -> None:
    """It ends the session; the client's goes on under another id, told of what was on its way, and adds up."""
    async with plain(serving) as client:
        for _ in range(3):
            await client.send(SECOND)
        messages = [await heard.next() for _ in range(3)]
        await heard.tell({"v": 1, "type": "ended", **of(messages[0]), "received": 2.0, **ACCOUNT, "silent": 2.0})
        lost = await told(client, "refused")
        assert (lost["reason"], lost["start"], lost["end"]) == ("worker_lost", 2.0, 3.0)
        await client.send(SECOND)
        await client.send("end")
        chunk, end = await heard.next(), await heard.next()
        assert chunk.headers["Audio-Offset"] == "48000"
        assert of(chunk)["session"] not in {of(m)["session"] for m in messages}
        final = {"v": 1, "type": "final", **of(end), "start": 3.25, "end": 4.0, "text": "on"}
        await heard.tell(final, {"v": 1, "type": "ended", **of(end), "received": 1.0, **ACCOUNT, "transcribed": 0.75})
        ended = await told(client, "ended")
    assert (ended["received"], ended["transcribed"], ended["silent"]) == (4.0, 0.75, 2.25)
    assert ended["gap"] == {"worker_lost": 1.0}


async def test_another_worker_that_begins_tells_what_the_first_lost(serving: Gateway, heard: Bus) -> None:
    """The first was killed, and said nothing."""
    async with plain(serving) as client:
        await client.send(SECOND)
        first = await heard.next()
        await heard.tell({"v": 1, "type": "started", **of(first)})
        await told(client, "started")
        await client.send(SECOND)
        second = await heard.next()
        await heard.tell({"v": 1, "type": "started", **of(second)})
        lost = await told(client, "refused")
    assert (lost["start"], lost["end"]) == (0.0, 1.0)


async def three_seconds(client: ClientConnection, heard: Bus) -> dict[str, Any]:
    """Send three chunks. Returns the fields of every result of their session."""
    for _ in range(3):
        await client.send(SECOND)
        chunk = await heard.next()
    return {"v": 1, **of(chunk)}


async def end(client: ClientConnection, heard: Bus, account: dict[str, Any]) -> dict[str, Any]:
    """End the session with an account. Returns what the client was told."""
    await client.send("end")
    await heard.next()
    await heard.tell(account | {"type": "ended"})
    return await told(client, "ended")


async def test_gap_leaves_out_text_that_was_told(serving: Gateway, heard: Bus) -> None:
    """A member of a fleet dies after a text that its last position lacks. The next one takes it for lost."""
    async with plain(serving) as client:
        said = await three_seconds(client, heard)
        await heard.tell(said | {"type": "final", "start": 0.5, "end": 1.25, "text": "on"})
        await heard.tell(said | {"type": "gap", "start": 0.25, "end": 2.0, "reason": "lost_upstream"})
        gaps = [await told(client, "gap"), await told(client, "gap")]
        account = ACCOUNT | {"received": 3.0, "silent": 1.25, "gap": {"lost_upstream": 1.75}}
        ended = await end(client, heard, said | account)
    assert [(gap["start"], gap["end"]) for gap in gaps] == [(0.25, 0.5), (1.25, 2.0)]
    assert (ended["transcribed"], ended["silent"], ended["gap"]) == (0.75, 1.25, {"lost_upstream": 1.0})


async def test_text_after_its_gap_is_told_and_counts_once(serving: Gateway, heard: Bus) -> None:
    """A member that hands over late speaks of what the next one has taken for lost. The account still adds up."""
    async with plain(serving) as client:
        said = await three_seconds(client, heard)
        await heard.tell(said | {"type": "gap", "start": 0.5, "end": 2.0, "reason": "lost_upstream"})
        await heard.tell(said | {"type": "final", "start": 1.0, "end": 2.5, "text": "on"})
        final = await told(client, "final")
        account = ACCOUNT | {"received": 3.0, "transcribed": 1.5, "silent": 1.5}
        ended = await end(client, heard, said | account)
    assert (final["start"], final["end"], final["text"]) == (1.0, 2.5, "on")
    assert (ended["transcribed"], ended["silent"], ended["gap"]) == (0.5, 1.0, {"lost_upstream": 1.5})


async def test_session_that_a_worker_had_ended_is_still_heard(serving: Gateway, heard: Bus) -> None:
    """It heard nothing for too long, as while NATS is away, and gives what comes later an id of its own."""
    async with plain(serving) as client:
        await client.send(SECOND)
        again = of(await heard.next()) | {"session": "1.2"}
        await heard.tell({"v": 1, "type": "started", **again})
        await heard.tell({"v": 1, "type": "final", **again, "start": 0.0, "end": 1.0, "text": "still"})
        assert (await told(client, "final"))["text"] == "still"
        await client.send("end")
        await heard.next()
        await heard.tell({"v": 1, "type": "ended", **again, "received": 1.0, **ACCOUNT, "transcribed": 1.0})
        assert (await told(client, "ended"))["received"] == 1.0


async def test_client_hears_that_no_worker_is_left(
    nats_server: NatsServer, heard: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent is told as refused, then the connection is closed for another attempt."""
    monkeypatch.setattr(bridge, "AWAY_SECS", 0.5)
    async with worker(nats_server.url) as only, gateway(nats_server.url) as serving, plain(serving) as client:
        await client.send(SECOND)
        await heard.next()
        await only.close()
        lost = await told(client, "refused")
        assert (lost["reason"], lost["start"], lost["end"]) == ("no_workers", 0.0, 1.0)
        await client.wait_closed()
    assert (client.close_code, client.close_reason) == (1013, "no_workers")


async def test_client_too_many_is_told_to_come_back(serving: Gateway, heard: Bus) -> None:
    """A worker or a fleet is full by the time the first audio comes: what was sent is lost, and that is told."""
    async with plain(serving) as client:
        await client.send(SECOND)
        chunk = await heard.next()
        await heard.tell({"v": 1, "type": "rejected", **of(chunk), "reason": "streams", "detail": "MAX_STREAMS=1"})
        lost = await told(client, "refused")
        await client.wait_closed()
    assert (lost["reason"], lost["start"], lost["end"]) == ("overloaded", 0.0, 1.0)
    assert (client.close_code, client.close_reason) == (1013, "overloaded")


async def test_nats_that_comes_back_costs_nothing(nats_server: NatsServer, serving: Gateway) -> None:
    """What the client sends meanwhile waits, and the subscription is there again."""
    async with plain(serving) as client:
        await client.send(SECOND)
        nats_server.kill()
        for _ in range(3):
            await client.send(SECOND)
        await asyncio.sleep(0.1)
        async with worker_later(nats_server) as heard:
            await client.send("end")
            async with asyncio.timeout(PATIENCE):
                while (end := await heard.next()).headers.get("Audio-Event") != "end":
                    pass
            assert end.headers["Audio-Offset"] == "64000"
            await heard.tell({"v": 1, "type": "ended", **of(end), "received": 4.0, **ACCOUNT})
            await told(client, "ended")


async def test_client_goes_on_when_nats_takes_audio_again(
    serving: Gateway, heard: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for its turn of every second: here none comes."""
    monkeypatch.setattr(bridge.Bridge, "tick", lambda _self, _now: None)
    monkeypatch.setattr(direct, "_BACKLOG", 1)  # any byte that waits closes the line
    async with plain(serving) as client:
        await client.send(SECOND * 10)
        offsets = [(await heard.next()).headers["Audio-Offset"] for _ in range(10)]
    assert offsets == [str(16_000 * n) for n in range(10)]
    assert serving.figures.pauses >= 1


async def test_session_that_begins_without_nats_loses_nothing(nats_server: NatsServer, serving: Gateway) -> None:
    """Its first audio waits as well, and goes out in chunks of a second."""
    async with plain(serving, "") as client:
        nats_server.kill()
        while serving.workers.connected:  # noqa: ASYNC110 - until the gateway has noticed
            await asyncio.sleep(0.01)
        for message in ("begin", SECOND * 3, "end"):
            await client.send(message)
        await asyncio.sleep(0.1)
        async with worker_later(nats_server) as heard:
            offsets = []
            async with asyncio.timeout(PATIENCE):
                while (message := await heard.next()).headers.get("Audio-Event") != "end":
                    offsets.append(message.headers["Audio-Offset"])
    assert offsets == ["0", "16000", "32000"]
    assert message.headers["Audio-Offset"] == "48000"


@asynccontextmanager
async def worker_later(server: NatsServer) -> AsyncIterator[Bus]:
    server.start()
    async with bus(server.url) as heard, worker(server.url):
        yield heard


async def test_slow_reader_loses_partials_and_then_its_connection(serving: Gateway) -> None:
    """Optional messages are dropped once it does not read; what it must have makes it too slow."""
    async with plain(serving, "") as client:
        client.transport.pause_reading()
        for _ in range(20):
            await client.send("flood")  # 4 MiB each, all optional
        await until(lambda: serving.figures.dropped > 0)
        for _ in range(3):
            await client.send("insist")  # 16 MiB
        await until(lambda: serving.figures.slow > 0)
        client.transport.resume_reading()
        with pytest.raises(ConnectionClosed):
            [_ async for _ in client]
    assert client.close_code == 1008
    assert "slow_consumer" in client.close_reason


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not happened():  # noqa: ASYNC110 - figures have no event
            await asyncio.sleep(0.01)


async def test_defect_in_a_protocol_costs_only_its_client(serving: Gateway) -> None:
    async with plain(serving) as other, plain(serving) as client:
        await client.send("fail")
        await client.wait_closed()
        assert client.close_code == 1011
        await other.send("flush")
        await told(other, "flushed")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([b"\x82\xff\0\0\0\0\0\x20\0\0\0\0\0\0"], 1009),  # 2 MiB announced
        ([b"\x81\x82\0\0\0\0\xff\xfe"], 1007),  # no UTF-8
        ([b"\x01\x81\0\0\0\0\xff", b"\x80\x80\0\0\0\0"], 1007),
        ([b"\x81\x02hi"], 1002),  # not masked
        ([b"\xf1\x80\0\0\0\0"], 1002),  # reserved bits
        ([b"\x80\x80\0\0\0\0"], 1002),  # a continuation of nothing
        ([b"\x88\x82\0\0\0\0\x03\xe8"], 1000),
    ],
)
async def test_bad_frames_close_the_connection_with_a_reason(serving: Gateway, frames: list[bytes], code: int) -> None:
    async with plain(serving, "") as client:
        for frame in frames:
            client.transport.write(frame)
        await client.wait_closed()
        assert client.close_code == code


async def test_message_in_fragments_with_pings_between_is_whole(serving: Gateway, heard: Bus) -> None:
    async with plain(serving) as client:
        await client.send([SECOND[:10], b"", SECOND[10:20]])
        pong = await client.ping()
        await pong
        assert (await heard.next()).data == SECOND[:20]
