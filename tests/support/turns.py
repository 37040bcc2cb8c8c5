"""Chunks for sessions that are fed by hand, and what is asked of their outputs."""

from __future__ import annotations

import itertools

import numpy as np

from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import SessionOutput, Sessions
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, Cursor, Encoding, Mark
from transcriber.domain.events import Ended, Started
from transcriber.domain.measurements import Tallies
from transcriber.domain.timeline import Account, Checkpoint, Origin

FORMAT = AudioFormat(Encoding.S16LE, 16_000, 1)
SECOND = bytes(2 * 16_000)

FORMATS = [
    AudioFormat(Encoding.S16LE, 16_000, 1),
    AudioFormat(Encoding.S16LE, 48_000, 1),
    AudioFormat(Encoding.F32LE, 44_100, 2),
    AudioFormat(Encoding.MULAW, 8_000, 1),
    AudioFormat(Encoding.S16LE, 11_025, 3),
]
# Speech-like noise: bursts of 0.7 s and pauses of 0.8 s, as bytes that any format can read.
_BURSTS = np.repeat([1, 0] * 40, 33_600)
NOISE = (np.random.default_rng(5).integers(-9000, 9000, len(_BURSTS)) * _BURSTS).astype("<i2").tobytes()


def sound(audio_format: AudioFormat, offset: int, frames: int, shift: int = 0) -> bytes:
    """A producer's sound at this offset, in whichever chunk it comes. Another `shift` is another sound."""
    size = audio_format.frame_bytes
    whole = len(NOISE) // size
    begin = (offset + shift) % whole
    return (NOISE * (1 + (begin + frames) // whole))[begin * size : (begin + frames) * size]


def make(**options: float) -> Sessions:
    ids = (f"generated-{n}" for n in itertools.count(1))
    return Sessions(SessionOptions(**options), lambda: next(ids), Tallies())  # type: ignore[arg-type]


def chunk(  # noqa: PLR0913, PLR0917 - every field that a chunk has
    session: str | None = None,
    offset: int | None = None,
    pcm: bytes = SECOND,
    event: ChunkEvent | None = None,
    stream: str = "s",
    audio_format: AudioFormat = FORMAT,
) -> Chunk:
    return Chunk(stream, audio_format, pcm, session, offset, event)


def kinds(outputs: list[SessionOutput]) -> list[tuple[str, str]]:
    return [(type(o).__name__, o.origin.session) for o in outputs if isinstance(o, Started | Ended)]


def noise(seed: int) -> bytes:
    """A second that holds the same as no other, too faint to be speech."""
    return np.random.default_rng(seed).integers(-20, 20, 16_000).astype("<i2").tobytes()


def checkpoint() -> Checkpoint:
    """Session `a` after a second of silence, stored at 100 s."""
    return Checkpoint(
        origin=Origin("s", "a"),
        requested_id="a",
        format=FORMAT,
        position=16_000,
        sequence=0,
        account=Account(received=16_000, transcribed=0, silent=16_000, gap={}, pending=0),
        cursor=Cursor(2, 0, Mark(1, 100.0)),
    )


def received(outputs: list[SessionOutput]) -> list[int]:
    """Samples of each session that ended."""
    return [o.account.received for o in outputs if isinstance(o, Ended)]


def ended(outputs: list[SessionOutput]) -> Ended:
    return next(o for o in outputs if isinstance(o, Ended))
