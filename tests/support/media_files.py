"""Recordings as phones and browsers make them, written by FFmpeg's libraries."""

from __future__ import annotations

import io

import av
import numpy as np
from harness import Speech

# FFmpeg's name of the container and of the codec, and the codec's rate.
KINDS = {
    "webm": ("webm", "libopus", 48_000),
    "m4a": ("ipod", "aac", 44_100),
    "mp4": ("mp4", "aac", 48_000),
    "aac": ("adts", "aac", 16_000),
}


def media_file(speech: Speech, kind: str) -> bytes:
    """The speech in one of `KINDS`, mono."""
    container, codec, rate = KINDS[kind]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = "mono"
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate)
        samples = np.clip(speech.samples * 32767, -32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = speech.rate
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()
