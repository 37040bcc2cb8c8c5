"""A producer that sends without a pause, whatever happens to the server."""

from __future__ import annotations

import asyncio

from harness import Client, Speech, s16

SAMPLES = 16_000
ENVIRON = {"AUDIO_SAMPLE_RATE": "16000", "WHISPER_RTF": "0.05", "WHISPER_THREADS": "1"}


class Radio:
    """A producer that does not wait for NATS: what it cannot send is lost, as its offsets show."""

    def __init__(self, client: Client, speech: Speech) -> None:
        self._client = client
        self._pcm = s16(speech.samples)
        self.lost: list[tuple[int, int]] = []

    async def play(self, pause: float) -> int:
        """Send it all, a chunk of 100 ms every `pause` seconds; returns the head of the timeline."""
        for start in range(0, len(self._pcm), 3200):
            chunk, offset = self._pcm[start : start + 3200], start // 2
            if self._client.nats.is_connected:
                await self._client.send(chunk, audio_session="run", audio_offset=offset)
            else:
                self.lost.append((offset, offset + len(chunk) // 2))
            await asyncio.sleep(pause)  # the pace is the point
        return len(self._pcm) // 2
