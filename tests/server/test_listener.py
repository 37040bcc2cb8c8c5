"""Following a stream on a real server, and the command `listen` around it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from command import Command, bus
from cues import event, final, parse_srt, parse_vtt
from harness import PATIENCE, NatsServer

from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.client.listener import Listener
from transcriber.domain.errors import BrokerError, BrokerLost


@asynccontextmanager
async def listening(url: str, stream: str = "*", **options: Any) -> AsyncIterator[tuple[Listener, Connection]]:
    connection = Connection(BrokerOptions(url=url, **options))
    await connection.open()
    try:
        listener = Listener(connection, stream)
        await listener.start()
        yield listener, connection
    finally:
        await connection.close()


def message(kind: str, stream: str = "s1", **more: Any) -> dict[str, Any]:
    return {"v": 1, "type": kind, "stream": stream, "session": "run"} | more


async def publish(url: str, *messages: tuple[str, Any]) -> None:
    client = await nats.connect(url)
    for subject, body in messages:
        await client.publish(subject, body if isinstance(body, bytes) else json.dumps(body).encode())
    await client.close()


async def heard(listener: Listener, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(PATIENCE):
        source = listener.messages()
        return [await anext(source) for _ in range(count)]


async def test_listener_hears_results_and_events_in_published_order(nats_server: NatsServer) -> None:
    """Finals, partials and events of all streams come. `ended` never overtakes the last words. Status is left out."""
    sent = [
        ("transcript.s1.event", message("started")),
        ("transcript.s1.status", message("status")),
        ("transcript.s2.final", message("final", "s2", text="ünï")),
        ("transcript.s1.partial", message("partial", text="u")),
        ("transcript.s1.final", message("final", text="uno")),
        ("transcript.s1.event", message("ended")),
    ] * 20
    async with listening(nats_server.url) as (listener, _):
        await publish(nats_server.url, *sent)
        assert await heard(listener, 100) == [body for _, body in sent if body["type"] != "status"]


async def test_listener_of_one_stream_hears_no_other(nats_server: NatsServer) -> None:
    """A listener for s1 does not hear s2, nor a stream whose name only begins with s1."""
    async with listening(nats_server.url, "s1") as (listener, _):
        await publish(nats_server.url, *((f"transcript.{s}.event", message("started", s)) for s in ("s2", "s11", "s1")))
        assert await heard(listener, 1) == [message("started", "s1")]


async def test_listener_skips_what_is_not_of_this_protocol(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may publish on these subjects. Text, bytes, other JSON and another version get a warning each."""
    others = [b"", b"\xff\xfe", b"hello", b"[1, 2]", b"3", b"null", b'{"type": "final"}', b"\x00" * 100, b"[" * 100_000]
    others += [json.dumps(message("final") | wrong).encode() for wrong in ({"v": 2}, {"type": 3}, {"session": None})]
    async with listening(nats_server.url) as (listener, _):
        await publish(nats_server.url, *(("transcript.s1.final", body) for body in others))
        await publish(nats_server.url, ("transcript.s1.final", message("final", text="good")))
        assert await heard(listener, 1) == [message("final", text="good")]
    assert [r.getMessage() for r in caplog.records] == [
        "transcript.s1.final: skipped a message that is not of this protocol"
    ] * len(others)


async def test_listener_survives_a_restart_of_the_server(nats_server: NatsServer) -> None:
    """The subscription comes back by itself, and later messages are heard."""
    async with listening(nats_server.url) as (listener, connection):
        await publish(nats_server.url, ("transcript.s1.event", message("started")))
        assert await heard(listener, 1) == [message("started")]
        nats_server.kill()
        nats_server.start()
        async with asyncio.timeout(PATIENCE):
            while not connection.reconnects:  # noqa: ASYNC110 - the event for it is set already before the break
                await asyncio.sleep(0.01)
        await publish(nats_server.url, ("transcript.s1.event", message("ended")))
        assert await heard(listener, 1) == [message("ended")]


async def test_listener_ends_when_the_server_is_gone_for_good(nats_server: NatsServer) -> None:
    """Messages that have arrived are given out first. Then comes `BrokerLost`, not an endless wait."""
    async with listening(nats_server.url, reconnect_timeout=0.1) as (listener, _):
        await publish(nats_server.url, ("transcript.s1.event", message("started")))
        source = listener.messages()
        assert (await anext(source))["type"] == "started"
        nats_server.kill()
        with pytest.raises(BrokerLost):
            await asyncio.wait_for(anext(source), PATIENCE)


async def test_a_forbidden_subject_is_an_error_at_the_start(tmp_path: Path) -> None:
    """A refused subscription would stay silent. The listener says so instead."""
    config = 'authorization { users = [{user: u, password: p, permissions: {subscribe: "none"}}] }'
    with NatsServer(tmp_path, config=config) as server:
        refused = listening(server.url, user="u", password="p")
        with pytest.raises(BrokerError, match=r"(?i)permissions violation"):
            await refused.__aenter__()


ENDED = event("ended", received=9.0, transcribed=2.0, silent=7.0, gap={}, pending=0.0)
TALK = (event("started"), final("a <b> & c", 1, 2), event("gap", start=2, end=3, reason="lag"), final("d", 3, 4), ENDED)


@pytest.mark.parametrize("style", ["text", "json", "srt", "vtt"])
async def test_listen_prints_each_format(nats_server: NatsServer, style: str) -> None:
    """Text for people, JSON lines for programs, and subtitle files that parse. `--until-end` ends with exit 0."""
    arguments = ("--stream", "radio-1", "--format", style, "--until-end")
    async with Command("listen", *arguments, NATS_URL=nats_server.url) as command, bus(nats_server.url) as daemon:
        await command.printed("listening to transcript.radio-1")
        await daemon.tell(final("not for us", stream="radio-2"), *TALK)
        assert await command.ended() == 0
    output = "".join(f"{line}\n" for line in command.out)
    cues = [(1.0, 2.0, "a <b> & c"), (3.0, 4.0, "d")]
    if style == "text":
        assert output == (
            "00:01.000 - 00:02.000  a <b> & c\n00:02.000 - 00:03.000  [not transcribed: lag]\n"
            "00:03.000 - 00:04.000  d\n"
            "[ended: received 9.00 s = transcribed 2.00 + silent 7.00 + gap 0.00 + pending 0.00]\n"
        )
    elif style == "json":
        assert [json.loads(line) for line in command.out] == list(TALK)
    else:
        assert (parse_srt if style == "srt" else parse_vtt)(output) == cues
    assert len(command.err) == 1


async def test_listen_ends_with_its_reader(nats_server: NatsServer) -> None:
    """`listen | head -1` ends when head does, not at the next word."""
    reading, writing = os.pipe()
    async with Command("listen", stdout=writing, NATS_URL=nats_server.url) as command, bus(nats_server.url) as daemon:
        os.close(writing)
        await command.printed("listening")
        await daemon.tell(final("hello"))
        line = await asyncio.to_thread(os.read, reading, 1000)
        assert line == b"radio-1  00:00.000 - 00:01.000  hello\n"
        os.close(reading)
        assert await command.ended() == 0
    assert len(command.err) == 1


async def test_listen_without_room_for_its_output_says_so(nats_server: NatsServer) -> None:
    """A full disk is an error with its reason, not a traceback."""
    full = os.open("/dev/full", os.O_WRONLY)
    async with Command("listen", stdout=full, NATS_URL=nats_server.url) as command, bus(nats_server.url) as daemon:
        os.close(full)
        await command.printed("listening")
        await daemon.tell(final("hello"))
        assert await command.ended() == 1
    assert command.err[1:] == ["transcriber: [Errno 28] No space left on device"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_listen_is_ended_by_the_user(nats_server: NatsServer, number: signal.Signals) -> None:
    """Ctrl-C is the normal way out: exit 0 and no message."""
    async with Command("listen", NATS_URL=nats_server.url) as command:
        await command.printed("listening")
        command.signal(number)
        assert await command.ended() == 0
    assert len(command.err) == 1


async def test_listen_can_be_left_while_its_reader_reads_nothing(nats_server: NatsServer) -> None:
    """`less` waits for its user, so the write and the event loop hang. Ctrl-C gets through."""
    reading, writing = os.pipe()
    async with Command("listen", stdout=writing, NATS_URL=nats_server.url) as command, bus(nats_server.url) as daemon:
        os.close(writing)
        await command.printed("listening")
        await daemon.tell(*(final("word " * 20_000) for _ in range(5)))
        await asyncio.to_thread(os.read, reading, 1)
        async with asyncio.timeout(PATIENCE):
            while command.process.returncode is None:
                command.signal(signal.SIGINT)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(command.process.wait(), 0.2)
        assert await command.ended() == 0
    os.close(reading)
    assert len(command.err) == 1


async def test_listen_does_not_stop_at_a_word_that_the_charset_lacks(nats_server: NatsServer) -> None:
    """Files are UTF-8 whatever the locale. In text a replacement stands for what the locale cannot show."""
    environ = {"NATS_URL": nats_server.url, "PYTHONIOENCODING": "ascii"}
    for style, wanted in (("text", "caf?"), ("srt", "café")):
        arguments = ("--format", style, "--until-end")
        async with Command("listen", *arguments, **environ) as command, bus(nats_server.url) as daemon:
            await command.printed("listening")
            await daemon.tell(final("café"), ENDED)
            assert await command.ended() == 0
        assert wanted in "".join(command.out)
