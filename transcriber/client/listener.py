"""Receives what the daemon publishes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from transcriber.protocol.outgoing import VERSION

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from transcriber.broker.connection import Connection

log = logging.getLogger(__name__)

KINDS = ("final", "partial", "event")


class Listener:
    """Yields the JSON of every result and event of a stream, or of all with `*`."""

    def __init__(self, connection: Connection, stream: str = "*") -> None:
        self._connection = connection
        self._stream = stream
        self._arrived: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def start(self) -> None:
        """Subscribe; everything published after this is received. Raises `BrokerError`."""
        # One subscription for all kinds: nats-py handles each on its own, so `ended` could overtake the last words.
        await self._connection.subscribe(f"transcript.{self._stream}.*", self._on_message)

    async def _on_message(self, message: Msg) -> None:
        if message.subject.rpartition(".")[2] not in KINDS:
            return
        try:
            body = json.loads(message.data)
            ours = body["v"] == VERSION and all(isinstance(body[key], str) for key in ("type", "stream", "session"))
        except (ValueError, KeyError, TypeError, RecursionError):
            ours = False
        if ours:
            self._arrived.put_nowait(body)
        else:  # other programs may publish on these subjects
            log.warning("%s: skipped a message that is not of this protocol", message.subject)

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield for ever. Raises `BrokerLost` when the connection is lost for good."""
        while True:
            arrival: asyncio.Future[Any] = asyncio.ensure_future(self._arrived.get())
            try:
                await asyncio.wait({arrival, self._connection.lost}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not arrival.done():
                    arrival.cancel()
            if not arrival.done():
                self._connection.lost.result()
            yield arrival.result()
