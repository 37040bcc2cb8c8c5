"""Peers that mean a gateway ill, or are broken. Each says in a few words how it was answered."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import io
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
import soundfile
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

PATIENCE = 150.0  # seconds for any answer: the longest that a gateway gives a peer is a minute
_TCP_REPAIR = 19  # of Linux: a socket that is closed in this state leaves without a word
_UPGRADE = (
    b"GET /v2/decode/stream/any HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_PING = b"\x89\xfd\0\0\0\0" + bytes(125)
_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway's ports."""

    port: int
    wyoming: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def socket(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


Peer = Callable[[Place], Awaitable[str]]


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            return await reader.read(-1)
    return b"reset"


async def _head(reader: asyncio.StreamReader) -> bytes:
    """The head of an answer."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except ConnectionError:
        return b"reset"


async def _exchange(port: int, data: bytes) -> bytes:
    """Send, and read until the gateway closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
    answer = await _rest(reader)
    writer.close()
    return answer


async def _dripped(place: Place, head: bytes, drop: bytes) -> str:
    """Send a head, and then a little each second, for as long as the gateway listens."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(head)
    answer = asyncio.create_task(_head(reader))
    while not answer.done():
        writer.write(drop)
        await asyncio.wait({answer}, timeout=1.0)
    writer.close()
    return _status(answer.result())


def _status(answer: bytes) -> str:
    return answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/1.1 ") else repr(answer[:40])


async def slow_head(place: Place) -> str:
    return await _dripped(place, b"GET /livez HTTP/1.1\r\n", b"X-More: 1\r\n")


async def slow_body(place: Place) -> str:
    return await _dripped(place, b"POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{", b" ")


async def slow_form(place: Place) -> str:
    kind = b"Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\n" + kind
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return await _dripped(place, head + b"%x\r\n%b\r\n" % (len(part), part), b"1\r\n0\r\n")


async def long_head(place: Place) -> str:
    return _status(await _exchange(place.port, b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n"))


async def random_bytes(place: Place) -> str:
    """Bytes without sense in place of HTTP; the end of the head among them."""
    answer = await _exchange(place.port, random.randbytes(5000) + b"\r\n\r\n" + random.randbytes(100))
    return "refused" if answer.startswith(b"HTTP/1.") and b" 400 " in answer[:20] else repr(answer[:40])


async def random_events(place: Place) -> str:
    """Bytes without sense in place of Wyoming's events."""
    return "closed" if await _exchange(place.wyoming, random.randbytes(70_000) + b"\n") is not None else ""


async def random_frames(place: Place) -> str:
    """Bytes without sense after the upgrade."""
    answer = await _exchange(place.port, _UPGRADE + b"\xff" + random.randbytes(1000))
    return "1002" if b"\x03\xea" in answer else repr(answer[-40:])


async def _closed(place: Place, path: str, *messages: str | bytes) -> str:
    """Send messages; the code of the close that answers them."""
    client = await connect(f"{place.socket}{path}", max_size=None)
    with contextlib.suppress(ConnectionClosed):
        for message in messages:
            await client.send(message)
        async with asyncio.timeout(PATIENCE):
            await client.wait_closed()
    return str(client.close_code)


async def huge_frame(place: Place) -> str:
    """A frame that announces 2^60 bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(_UPGRADE + b"\x82\xff" + struct.pack("!Q", 2**60) + bytes(4))
    answer = await _rest(reader)
    writer.close()
    return "1009" if b"\x03\xf1" in answer else repr(answer[-40:])


async def endless_message(place: Place) -> str:
    """Fragments without an end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(_UPGRADE + b"\x02\xfe\xff\xff\0\0\0\0" + bytes(65_535))
    answer = asyncio.create_task(_rest(reader))
    with contextlib.suppress(ConnectionError):
        while not answer.done():
            writer.write(b"\x00\xfe\xff\xff\0\0\0\0" + bytes(65_535))
            await writer.drain()
            await asyncio.sleep(0)
    writer.close()
    return "1009" if b"\x03\xf1" in await answer or answer.result() == b"reset" else repr(answer.result()[-40:])


async def pinged(place: Place) -> int:
    """Send pings as fast as they go, and read no answer. Returns the bytes until the gateway cuts the connection."""
    loop, sent = asyncio.get_running_loop(), 0
    with socket.create_connection(("127.0.0.1", place.port)) as held, contextlib.suppress(ConnectionError):
        held.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(held, _UPGRADE)
            while True:
                await loop.sock_sendall(held, _PING * 500)
                sent += len(_PING) * 500
                await asyncio.sleep(0)
    return sent


async def flood_of_pings(place: Place) -> str:
    return "cut" if await pinged(place) else ""


async def deaf(place: Place) -> str:
    """A connection that is there and never answers a ping, as of a process that was stopped."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(_UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    heard = await _rest(reader)
    writer.close()
    return "cut after pings" if b"\x89\x00" in heard or heard == b"reset" else repr(heard[-40:])


async def half_open(place: Place) -> str:
    """A client that is gone without a FIN, as after a loss of power."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(_UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    writer.transport.abort()
    return "gone"


async def reset(place: Place) -> str:
    """A client that is gone with an RST, in the middle of a frame."""
    _, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(_UPGRADE + b"\x82\xfe\x10\x00\0\0\0\0" + bytes(100))
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return "gone"


async def _posted(place: Place, path: str, data: Any, headers: Mapping[str, str] | None = None) -> str:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as http,
        http.post(f"{place.url}{path}", data=data, headers=headers) as answer,
    ):
        said = await answer.json()
        error = said.get("error") or said.get("err_msg") or said.get("detail") or said
        return f"{answer.status} {error['message'] if isinstance(error, dict) and 'message' in error else error}"


async def no_base64(place: Place) -> str:
    return await _posted(place, "/transcribe", json.dumps({"audio_data": "%%% no base64 %%%", "format": "pcm_s16le"}))


async def no_base64_live(place: Place) -> str:
    """An append that is none costs an error, and not the connection."""
    async with connect(f"{place.socket}/v1/realtime?intent=transcription") as client, asyncio.timeout(PATIENCE):
        await client.send(json.dumps({"type": "input_audio_buffer.append", "audio": "%%%"}))
        while (event := json.loads(await client.recv()))["type"] != "error":
            pass
        await client.send(json.dumps({"type": "session.update", "session": {"type": "transcription"}}))
        while json.loads(await client.recv())["type"] not in {"session.updated", "transcription_session.updated"}:
            pass
    return str(event["error"]["message"])


async def deep_json(place: Place) -> str:
    return await _posted(place, "/transcribe", b"[" * 200_000)


async def unpacked(place: Place) -> str:
    """A gigabyte of nothing, packed into one megabyte."""
    return await _posted(place, "/transcribe", _zeros(), {"Content-Encoding": "gzip"})


async def silence(place: Place) -> str:
    """Five hours of it, in a few megabytes."""
    return await _posted(place, "/v1/audio/transcriptions", {"file": io.BytesIO(_silence())})


async def many_channels(place: Place) -> str:
    """Ten thousand of them."""
    channels = 10_000
    kind = struct.pack("<HHIIHH", 1, channels, 8000, 8000 * 2 * channels, 2 * channels, 16)
    pcm = bytes(2 * channels * 10)
    riff = b"WAVEfmt " + struct.pack("<I", len(kind)) + kind + b"data" + struct.pack("<I", len(pcm)) + pcm
    wav = b"RIFF" + struct.pack("<I", len(riff)) + riff
    return await _posted(place, "/v1/audio/transcriptions", {"file": io.BytesIO(wav)})


async def noise(place: Place) -> str:
    """A file of no kind."""
    return await _posted(place, "/v1/audio/transcriptions", {"file": io.BytesIO(random.randbytes(100_000))})


async def text_for_vosk(place: Place) -> str:
    return await _closed(place, "/", "no JSON at all")


@functools.cache
def _zeros() -> bytes:
    return gzip.compress(bytes(2**30), 9)


@functools.cache
def _silence() -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8000, 1, "VORBIS", format="OGG") as out:
        for _ in range(5 * 60):
            out.write(np.zeros(60 * 8000, np.float32))
    return file.getvalue()


# What each must be answered, or a part of it.
QUICK: Mapping[Peer, str] = {
    long_head: "431",
    random_bytes: "refused",
    random_events: "closed",
    random_frames: "1002",
    huge_frame: "1009",
    endless_message: "1009",
    flood_of_pings: "cut",
    half_open: "gone",
    reset: "gone",
    no_base64: "400 audio_data",
    no_base64_live: "base64",
    deep_json: "400",
    many_channels: "400",
    noise: "400 the file is of no known kind",
    text_for_vosk: "1003",
}
SLOW: Mapping[Peer, str] = {slow_head: "408", slow_body: "408", slow_form: "408", deaf: "cut after pings"}
HEAVY: Mapping[Peer, str] = {silence: "GATEWAY_MAX_AUDIO_SECS", unpacked: "413"}
