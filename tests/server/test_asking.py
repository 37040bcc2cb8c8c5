"""Requests and their answers through one subscription, against a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import nats
import pytest
from harness import PATIENCE, NatsServer
from nats.aio.msg import Msg

from transcriber.broker.asking import Asking
from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.domain.errors import RequestError


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    made = Connection(BrokerOptions(url=nats_server.url))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def asking(connection: Connection) -> Asking:
    made = Asking(connection)
    await made.start()
    return made


@pytest.fixture
async def other(nats_server: NatsServer) -> AsyncIterator[nats.aio.client.Client]:
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


async def test_thousand_requests_at_a_time_get_each_its_own_answer(
    asking: Asking, other: nats.aio.client.Client
) -> None:
    """With their headers, and with payloads that are more than the socket takes at once."""

    async def answer(message: Msg) -> None:
        assert message.headers is not None
        await message.respond(message.headers["Number"].encode() + message.data[-4:])

    await other.subscribe("echo", cb=answer)
    await other.flush()
    payload = bytes(5_000)
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(
            *(asking.ask("echo", payload + b"%04d" % n, {"Number": str(n)}, PATIENCE) for n in range(1000))
        )
    assert answers == [b"%d%04d" % (n, n) for n in range(1000)]


async def test_silence_is_given_up_after_the_patience(asking: Asking, other: nats.aio.client.Client) -> None:
    """Each request by its own; an answer that comes too late harms nobody."""
    asked: list[Msg] = []

    async def keep(message: Msg) -> None:
        asked.append(message)

    await other.subscribe("silence", cb=keep)
    await other.flush()
    begin = time.monotonic()
    patient = asyncio.create_task(asking.ask("silence", b"2", {}, PATIENCE))
    with pytest.raises(RequestError, match=r"no answer to silence within 0\.2 s") as error:
        await asking.ask("silence", b"1", {}, 0.2)
    assert error.value.code == 504
    assert time.monotonic() - begin >= 0.2
    for message in asked:
        await message.respond(message.data)
    assert await patient == b"2"


async def test_request_that_is_cancelled_leaves_nothing(asking: Asking, other: nats.aio.client.Client) -> None:
    await other.subscribe("silence", cb=_keep_silent)
    await other.flush()
    waiting = asyncio.create_task(asking.ask("silence", b"", {}, PATIENCE))
    await asyncio.sleep(0)
    assert asking.waiting == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asking.waiting == 0


async def test_request_that_nobody_hears_says_so(asking: Asking) -> None:
    with pytest.raises(RequestError, match="nobody answers nowhere") as error:
        await asking.ask("nowhere", b"", {}, PATIENCE)
    assert error.value.code == 503


async def test_request_larger_than_the_server_takes_is_refused(asking: Asking) -> None:
    """With its headers; the connection stays."""
    for size, headers in ((asking.max_payload + 1, {}), (asking.max_payload, {"A": "b"})):
        with pytest.raises(RequestError, match="max_payload") as error:
            await asking.ask("nowhere", bytes(size), headers, PATIENCE)
        assert error.value.code == 413
    with pytest.raises(RequestError, match="nobody"):
        await asking.ask("nowhere", bytes(asking.max_payload), {}, PATIENCE)


async def test_requests_and_messages_go_out_in_their_order(
    connection: Connection, other: nats.aio.client.Client
) -> None:
    """Whichever way they are published, also while the socket is full."""
    heard: list[int] = []
    done = asyncio.Event()

    async def hear(message: Msg) -> None:
        heard.append(int(message.data[:6]))
        if len(heard) == 600:
            done.set()

    await other.subscribe("order", cb=hear)
    await other.flush()
    rest = bytes(20_000)
    for number in range(600):
        payload = b"%06d" % number + rest
        if number % 3:
            connection.client.put(b"PUB order %d\r\n%b\r\n" % (len(payload), payload))
        else:
            await connection.publish("order", payload)
        if number % 50 == 0:
            await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await done.wait()
    assert heard == list(range(600))
    assert connection.client.backlog == 0


async def _keep_silent(_message: Msg) -> None:
    """No answer."""
