"""A gateway in this process with a trivial protocol of its own, and what it needs to be let in."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from transcriber.broker.options import BrokerOptions
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.dialect import Audio, Begin, Close, Command, End, Flush, Hearing, Keepalive, Send
from transcriber.gateway.options import GatewayOptions
from transcriber.gateway.parts import Parts
from transcriber.gateway.problems import Problem
from transcriber.gateway.routes import Accepted, Opening, SocketRoute
from transcriber.gateway.service import Gateway
from transcriber.gateway.site import REGISTERS, Register


class Plain:
    """Binary in is audio; text in is a command by name; everything that is heard comes out as JSON."""

    max_message = 1024 * 1024

    def __init__(self, opening: Opening) -> None:
        self.eager = "eager" in opening.query
        rate = int(opening.query.get("rate", ["16000"])[0])
        (model,) = opening.query.get("model", [None])
        shape = AudioFormat(Encoding.S16LE, rate, 1)
        self.hearing = Hearing(format=shape, model=model, speech="speech" in opening.query)
        self.ticks = 0

    def opened(self) -> Iterable[Command]:
        return [Begin(self.hearing)] if self.eager else []

    def received(self, message: str | bytes) -> Iterable[Command]:
        if isinstance(message, bytes):
            return [Audio(message)]
        if message == "fail":
            raise ZeroDivisionError
        commands: dict[str, list[Command]] = {
            "begin": [Begin(self.hearing)],
            "flush": [Flush()],
            "end": [End()],
            "keepalive": [Keepalive()],
            "ticks": [Send(str(self.ticks))],
            "flood": [Send("x" * 65536, optional=True)] * 64,
            "insist": [Send("x" * 65536)] * 256,
        }
        return commands.get(message, [Close(4000, message)])

    def passes(self, _pcm: bytes) -> bool:
        return True

    def heard(self, _channel: int, message: Mapping[str, Any]) -> Iterable[Command]:
        yield Send(json.dumps(message), optional=message["type"] == "partial")
        if message["type"] == "ended" and self.eager:
            yield Close(1000, "done")

    def refused(self, _channel: int, reason: str, start: float, end: float) -> Iterable[Command]:
        return [Send(json.dumps({"type": "refused", "reason": reason, "start": start, "end": end}))]

    def tick(self, _now: float) -> Iterable[Command]:
        self.ticks += 1
        return []


def register(parts: Parts) -> None:
    def open_plain(opening: Opening) -> Accepted:
        if "refuse" in opening.query:
            raise Problem(400, "as you wish", code="refused")
        chosen = next((s for s in opening.subprotocols if s in {"realtime", "token"}), None)
        return Accepted(dialect=Plain(opening), subprotocol=chosen, headers={"x-plain": "yes"})

    parts.routes.add_socket("/plain", SocketRoute(open=open_plain))


@asynccontextmanager
async def worker(url: str, **state: Any) -> AsyncIterator[nats.aio.client.Client]:
    """A service that answers as a daemon's does, and does nothing else; `state` is what it says of itself."""
    client = await nats.connect(url)
    said = {"name": "transcriber", "id": secrets.token_hex(4), "version": "1.0.0", "endpoints": [{"data": state}]}

    async def answer(message: Msg) -> None:
        await message.respond(json.dumps(said).encode())

    await client.subscribe("$SRV.STATS.transcriber", cb=answer)
    await client.flush()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def gateway(url: str, add: Register = register, **options: Any) -> AsyncIterator[Gateway]:
    """A gateway on a free port, with all of its own paths and those of `add`; stopped at the end."""
    given = GatewayOptions(port=0, broker=BrokerOptions(url=url), **{"shutdown_grace": 5.0, **options})
    serving, stop = Gateway(given, [*REGISTERS, add]), asyncio.Event()
    running = asyncio.create_task(serving.run(stop))
    await asyncio.wait({running, asyncio.create_task(serving.ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    try:
        yield serving
    finally:
        stop.set()
        await running


async def refusal(serving: Gateway, path: str = "/plain", **options: Any) -> Response:
    """The answer by which a WebSocket is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{serving.port}{path}", **options)
    return refused.value.response


def error_of(response: Response) -> str:
    """The code of a refusal in OpenAI's shape."""
    return str(json.loads(response.body)["error"]["code"])
