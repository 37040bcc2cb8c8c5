"""`python -m benchmarks.floor`: the libraries alone, on the same messages as the daemon.

For each message nats-py receives, soxr resamples and webrtcvad decides; nothing else happens. It prints "ready" once it
listens, and runs until it is stopped.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import nats
import numpy as np
import soxr
import webrtcvad

from transcriber import settings

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_FRAME_BYTES = 960  # 30 ms of 16 kHz s16: the longest frame of webrtcvad, and the cheapest
_RATE = 48_000  # Hz, as `load` publishes


class _Ear:
    """Has a resampler for each stream. An incomplete frame waits for the next message."""

    def __init__(self) -> None:
        self._resamplers: dict[str, soxr.ResampleStream] = {}
        self._rest: dict[str, bytes] = {}
        self._vad = webrtcvad.Vad(2)

    async def hear(self, message: Msg) -> None:
        stream = message.subject
        resampler = self._resamplers.get(stream)
        if resampler is None:
            resampler = self._resamplers[stream] = soxr.ResampleStream(_RATE, 16_000, 1, "int16", "HQ")
        pcm = self._rest.get(stream, b"") + resampler.resample_chunk(np.frombuffer(message.data, "<i2")).tobytes()
        whole = len(pcm) // _FRAME_BYTES * _FRAME_BYTES
        for i in range(0, whole, _FRAME_BYTES):
            self._vad.is_speech(pcm[i : i + _FRAME_BYTES], 16_000)
        self._rest[stream] = pcm[whole:]


async def _main() -> None:
    broker = settings.load().broker
    connection = await nats.connect(broker.servers, **broker.arguments())
    await connection.subscribe("audio.*", cb=_Ear().hear)
    await connection.flush()
    await connection.flush()  # the first PING overtakes the subscription
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
