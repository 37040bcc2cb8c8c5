"""When a member writes up to where the live streams of a partition are settled."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import Sessions
from transcriber.daemon import fleet_live
from transcriber.daemon.fleet_live import LiveShares, _Share
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, Encoding
from transcriber.domain.measurements import Tallies
from transcriber.domain.timeline import SAMPLE_RATE, Window
from transcriber.protocol.positions import decode_positions


class Bucket:
    """Stands for the server's bucket, and tells of each write."""

    def __init__(self) -> None:
        self.written: asyncio.Queue[bytes] = asyncio.Queue()

    async def write_position(self, _partition: int, payload: bytes, revision: int) -> int:
        self.written.put_nowait(payload)
        return revision + 1


class Silent:
    """Stands for a subscription to which nothing more comes."""

    def recent(self) -> dict[str, Any]:
        return {}


async def test_positions_follow_a_text_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon may die a moment later. An hour between two positions shows that it is the text that counts."""
    monkeypatch.setattr(fleet_live, "_POSITION_SECS", 3600.0)
    sessions, bucket = Sessions(SessionOptions(), lambda: "x", Tallies()), Bucket()
    noise = np.random.default_rng(1).integers(-9000, 9000, SAMPLE_RATE).astype("<i2")
    chunk = Chunk("s1", AudioFormat(Encoding("pcm_s16le"), SAMPLE_RATE, 1), noise.tobytes(), "x", 0, ChunkEvent.FLUSH)
    (window,) = [output for output in sessions.receive(chunk, 0.0) if isinstance(output, Window)]
    shares = LiveShares(None, None, bucket, None)  # type: ignore[arg-type]
    pipeline = SimpleNamespace(published=asyncio.Event())
    share = _Share(
        sessions=sessions,
        pipeline=pipeline,  # type: ignore[arg-type]
        subscribed=Silent(),  # type: ignore[arg-type]
        load=None,  # type: ignore[arg-type]
        revision=0,
        ingesting=None,  # type: ignore[arg-type]
    )
    telling = asyncio.create_task(shares._tell(3, share))
    async with asyncio.timeout(30):
        pipeline.published.set()
        begun = decode_positions(await bucket.written.get())
        sessions.transcribed(window)
        pipeline.published.set()
        after = decode_positions(await bucket.written.get())
    telling.cancel()
    assert begun.sessions[0].position == window.start
    assert after.sessions[0].position >= window.end
