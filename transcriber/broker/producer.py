"""Sends a recording or raw PCM as a producer would: chunks with offsets, then `end`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.broker import wire
from transcriber.broker.encoding import header_bytes
from transcriber.errors import RecordingError

if TYPE_CHECKING:
    from transcriber.broker.connection import Connection
    from transcriber.messages import AudioFormat


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the audio goes. `speed`: times real time, 0 for as fast as it goes; `language` as in WIRE."""

    stream: str
    session: str
    speed: float = 1.0
    language: str | None = None


class Producer:
    """Publishes PCM of one format to `audio.<stream>`."""

    def __init__(self, connection: Connection, delivery: Delivery, audio_format: AudioFormat) -> None:
        self._connection = connection
        self._delivery = delivery
        self._format = audio_format
        self._subject = f"{wire.AUDIO}.{delivery.stream}"
        self._offset = 0
        self._headers = {
            wire.ENCODING: audio_format.encoding.value,
            wire.RATE: str(audio_format.rate),
            wire.CHANNELS: str(audio_format.channels),
            wire.SESSION: delivery.session,
        }
        if delivery.language is not None:
            self._headers[wire.LANGUAGE] = delivery.language

    async def send(self, pieces: Iterable[bytes], progress: Callable[[float], object]) -> float:
        """Publish the pieces (whole sample frames each) at the delivery's speed; `progress` gets seconds of audio.

        Returns the seconds sent. Raises `RecordingError` when a piece is larger than the server takes.
        """
        begin = time.monotonic()
        for piece in pieces:
            if self._delivery.speed:
                due = begin + self._offset / self._format.rate / self._delivery.speed
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self.send_piece(piece)
            progress(len(piece) / self._format.frame_bytes / self._format.rate)
        return self._offset / self._format.rate

    async def send_piece(self, piece: bytes) -> None:
        """Publish one chunk now."""
        headers = self._headers | {wire.OFFSET: str(self._offset)}
        if len(piece) + header_bytes(headers) > self._connection.max_payload:
            limit = self._connection.max_payload
            raise RecordingError("chunk", f"{len(piece)} bytes are more than the server's max_payload {limit}")
        await self._connection.publish(self._subject, piece, headers)
        self._offset += len(piece) // self._format.frame_bytes

    async def end(self) -> None:
        """Tell the daemon that the session is over, and wait until the server has everything."""
        await self._connection.publish(self._subject, b"", self._headers | {wire.EVENT: "end"})
        await self._connection.confirm()
