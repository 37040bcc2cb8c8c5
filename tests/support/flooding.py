"""A stream that sends far faster than real time."""

from __future__ import annotations

import asyncio
import time

from harness import Client

SPEED = 20
CHUNK = 4800 * 2  # 100 ms of 48 kHz s16 mono


async def flood(client: Client, pcm: bytes, seconds: float) -> int:
    """Publish at SPEED times real time; returns how many sample frames went out."""
    begin, sent = time.monotonic(), 0
    while (due := begin + sent / 2 / 48_000 / SPEED) < begin + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        position = sent % len(pcm)
        chunk = pcm[position : position + CHUNK]
        await client.send(chunk, audio_session="flood", audio_offset=sent // 2)
        sent += len(chunk)
    await client.send(audio_session="flood", audio_event="end")
    return sent // 2
