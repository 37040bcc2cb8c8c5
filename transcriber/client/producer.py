"""Reads a recorder's pipe without blocking, and publishes its audio: chunks with offsets, then `end`."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nats.errors

from transcriber.domain.errors import RecordingError
from transcriber.protocol import incoming
from transcriber.protocol.outgoing import header_bytes
from transcriber.protocol.partitions import audio_subject
from transcriber.threads import post

if TYPE_CHECKING:
    from transcriber.broker.connection import Connection
    from transcriber.domain.chunks import AudioFormat
    from transcriber.protocol.partitions import FleetOptions

_READ_BYTES = 65_536  # the size of a pipe on Linux
_READS_AHEAD = 256  # at most 16 MiB, and some seconds of a recorder's small writes, for when NATS is away
_RETRY_SECS = 0.05  # between two attempts to publish a chunk, while nats-py notices that the server is gone


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the audio goes. `speed`: times real time, 0 for as fast as possible; `language` as in P-3.

    With a `group`, the subject names it (P-40). With a `fleet`, which may be a group, it names the stream's partition.
    So live audio finds its daemon.
    """

    stream: str
    session: str
    speed: float = 1.0
    language: str | None = None
    fleet: FleetOptions | None = None
    group: str = ""


def check_range(name: str, rate: int, channels: int) -> None:
    """Raise `RecordingError` unless the daemon accepts this rate (Hz) and this number of channels."""
    if rate not in incoming.RATES or channels not in incoming.CHANNEL_COUNTS:
        found = f"{rate} Hz, channels: {channels}"
        raise RecordingError(name, f"{found}; allowed are 8000 to 192000 Hz and 1 to 8 channels")


class Producer:
    """Publishes PCM of one format to `audio.<stream>`. While NATS is away it waits, so that no audio is skipped."""

    def __init__(self, connection: Connection, delivery: Delivery, audio_format: AudioFormat) -> None:
        self._connection = connection
        self._delivery = delivery
        self._format = audio_format
        self._offset = 0
        fleet, stream = delivery.fleet, delivery.stream
        self.subject = audio_subject(stream, delivery.group) if fleet is None else fleet.subject_of(stream)
        self._headers = {
            incoming.ENCODING: audio_format.encoding.value,
            incoming.RATE: str(audio_format.rate),
            incoming.CHANNELS: str(audio_format.channels),
            incoming.SESSION: delivery.session,
        }
        if delivery.language is not None:
            self._headers[incoming.LANGUAGE] = delivery.language

    @property
    def seconds(self) -> float:
        """Seconds of audio sent so far."""
        return self._offset / self._format.rate

    async def send(
        self,
        pieces: Iterable[bytes] | AsyncIterable[bytes],
        progress: Callable[[float], object] = lambda _seconds: None,
    ) -> None:
        """Publish the pieces (whole sample frames each) at the delivery's speed; `progress` gets the seconds so far.

        Raises `RecordingError` when a piece is larger than the server accepts, `BrokerError` if it forbids the subject,
        `BrokerLost` when the connection is lost for good.
        """
        begin = time.monotonic()
        async for piece in _each(pieces):
            due = begin + self.seconds / self._delivery.speed if self._delivery.speed else 0.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))  # even for 0 s: the connection needs its turn
            first = not self._offset
            await self.send_piece(piece)
            if first:
                await self._confirm()  # report a forbidden subject now, not after an hour of audio
            progress(self.seconds)
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError  # nats-py swallows a cancellation that arrives while it writes

    async def send_piece(self, piece: bytes) -> None:
        """Publish one chunk now, or once NATS is back. Raises as `send` does."""
        headers = self._headers | {incoming.OFFSET: str(self._offset)}
        if (size := len(piece) + header_bytes(headers)) > self._connection.max_payload:
            raise RecordingError(
                f"a chunk of {size} bytes",
                f"more than the server's max_payload of {self._connection.max_payload}; send shorter ones",
            )
        await self._publish(piece, headers)
        self._offset += len(piece) // self._format.frame_bytes

    async def end(self) -> None:
        """Publish the session's end, and wait until the server has it. Raises as `send` does.

        Its offset lets the daemon account for chunks that were lost just before it. A repeated end does no harm.
        """
        taken = False
        while not taken:
            await self._publish(b"", self._headers | {incoming.OFFSET: str(self._offset), incoming.EVENT: "end"})
            taken = await self._connection.flushed()

    async def _confirm(self) -> None:
        """Wait until the server has received everything sent so far. Raises `BrokerError` when it refused something."""
        while not await self._connection.flushed():
            await self._until_connected()
        self._connection.check()  # the server sends a refusal before it answers a flush

    async def _publish(self, payload: bytes, headers: dict[str, str]) -> None:
        while True:
            await self._until_connected()
            try:
                return await self._connection.publish(self.subject, payload, headers)
            except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError):
                # `connected` or `lost` is about to change.
                await asyncio.sleep(_RETRY_SECS)

    async def _until_connected(self) -> None:
        """Wait until NATS is connected. Raises `BrokerLost`."""
        connection = self._connection
        while not connection.connected.is_set():
            back: asyncio.Future[Any] = asyncio.ensure_future(connection.connected.wait())
            try:
                await asyncio.wait({back, connection.lost}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                back.cancel()
            if connection.lost.done():
                connection.lost.result()


class Pipe:
    """Reads a file descriptor on a thread: a recorder delivers slowly, and the event loop must answer NATS meanwhile.

    The thread may block for ever in a read that nothing can interrupt. It is a daemon thread, so the process can exit.
    """

    def __init__(self, descriptor: int, name: str, note: Callable[[str], object] = lambda _text: None) -> None:
        """`name` is used in errors; `note` gets messages for the user."""
        self._descriptor = descriptor
        self._name = name
        self._note = note
        self._loop = asyncio.get_running_loop()
        self._arrived: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(_READS_AHEAD)
        self._buffer = b""
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        more = True
        while more:
            self._room.acquire()
            data: bytes | OSError
            try:
                data = os.read(self._descriptor, _READ_BYTES)
                more = bool(data)
            except OSError as error:
                data, more = error, False
            if not post(self._loop, self._arrived.put_nowait, data):  # the event loop is closed
                return

    def put_back(self, data: bytes) -> None:
        """Return these bytes to the front of the stream."""
        self._buffer = data + self._buffer

    async def some(self) -> bytes:
        """Return what has arrived: at least one byte, or none at the end. Raises `RecordingError` if reading fails."""
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        arrived = await self._arrived.get()
        self._room.release()
        if isinstance(arrived, OSError):
            raise RecordingError(self._name, (arrived.strerror or str(arrived)).lower()) from arrived
        if not arrived:
            self._arrived.put_nowait(b"")  # the end stays the end
        return arrived

    async def read(self, size: int) -> bytes:
        """Return exactly `size` bytes, fewer only at the end. Raises as `some` does."""
        parts = bytearray()
        while len(parts) < size and (data := await self.some()):
            parts += data
        self.put_back(bytes(parts[size:]))
        return bytes(parts[:size])

    async def chunks(self, pcm: AudioFormat, secs: float, head: bytes, size: int | None = None) -> AsyncIterator[bytes]:
        """Yield the audio in chunks of `secs` and whole sample frames: `head` first, `size` bytes in total."""
        self.put_back(head)
        step = pcm.frame_bytes * max(1, int(pcm.rate * secs))
        left = size
        while data := await self.read(step if left is None else min(step, left)):
            left = None if left is None else left - len(data)
            if odd := len(data) % pcm.frame_bytes:
                self._note(
                    f"{self._name}: the last {odd} bytes are not a whole sample frame of {pcm.frame_bytes}; not sent"
                )
            if whole := data[: len(data) - odd]:
                yield whole

    async def rest(self) -> bytes:
        """Return everything up to the end. Raises as `some` does."""
        parts = bytearray()
        while data := await self.some():
            parts += data
        return bytes(parts)


async def _each(pieces: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece
