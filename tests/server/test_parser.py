"""What a real server writes, read by the short parser."""

from __future__ import annotations

import asyncio
import random

import nats
from harness import NatsServer
from nats.aio.msg import Msg

from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions

_OFFSET = b"NATS/1.0\r\nAudio-Offset: 7\r\n\r\n"
_LARGEST = 2**20 - 100  # bytes: the server's max_payload, less the headers


async def test_parser_hears_all_sizes_and_ways_in_order(nats_server: NatsServer) -> None:
    """Short and long, with headers and without, to takers and to nats-py's own subscriptions."""
    connection = Connection(BrokerOptions(url=nats_server.url))
    await connection.open()
    heard: dict[str, list[bytes]] = {"listen": [], "hand": []}
    own: asyncio.Queue[bytes] = asyncio.Queue()
    headed: list[bytes] = []

    def listen(_subject: bytes, block: bytes, payload: bytes) -> None:
        heard["listen"].append(payload)
        headed.append(block)

    async def hear(message: Msg) -> None:
        own.put_nowait(message.data)

    connection.client.listen("listen.*", listen)
    await connection.hand_over("hand.*", lambda _subject, _headers, payload: heard["hand"].append(payload))
    await connection.subscribe("own.*", hear)
    other = await nats.connect(nats_server.url)
    chance, sent = random.Random(7), {"listen": [], "hand": [], "own": []}
    sizes = [0, 1, 3_200, 32_700, 70_000, _LARGEST]
    for number in range(300):
        way, size = chance.choice(list(sent)), chance.choices(sizes, [4, 4, 4, 4, 2, 0.2])[0]
        payload = chance.randbytes(size)
        await other.publish(f"{way}.{number}", payload, headers={"Audio-Offset": "7"} if number % 2 else None)
        sent[way].append(payload)
    await other.flush()
    await connection.confirm()
    assert [await own.get() for _ in sent["own"]] == sent.pop("own")
    assert heard == sent
    assert set(headed) == {b"", _OFFSET}
    assert connection.reconnects == 0
    await other.close()
    await connection.close()
