"""Reads the header of a WAV file. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from transcriber.domain.chunks import AudioFormat, Encoding

# WAV's format tag and bits per sample of the encodings that need no conversion:
# https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats
_ENCODINGS = {(1, 16): Encoding.S16LE, (3, 32): Encoding.F32LE, (6, 8): Encoding.ALAW, (7, 8): Encoding.MULAW}
_EXTENSIBLE = 0xFFFE  # this tag means that the real one comes later
_FMT_BYTES, _FMT_EXTENSIBLE_BYTES = 16, 26
# A program that writes to a pipe does not know the size. It writes 0, or almost the largest number of 31 or 32 bits.
# A true size beyond this limit does no harm: then the end of the input ends the samples.
_UNKNOWN_SIZE = 2_000_000_000


@dataclass(frozen=True, slots=True)
class WavHead:
    """The header of a WAV file.

    - `format`: that of the samples. None when they cannot go out as they are, such as those of 24 bits.
    - `start`: the byte at which the first sample begins.
    - `size`: how many bytes of samples there are. None when that was not known when the head was written.
    """

    format: AudioFormat | None
    start: int
    size: int | None


def wav_head(data: bytes) -> WavHead | None:
    """Read the header from a WAV file's first bytes. None if more bytes are needed."""
    if len(data) >= 12 and (data[:4] != b"RIFF" or data[8:12] != b"WAVE"):  # noqa: PLR2004 - RIFF, size, WAVE
        return WavHead(None, 0, None)
    audio_format, at = None, 12
    while len(data) >= at + 8:
        kind, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if kind == b"data":
            return WavHead(audio_format, at, size if 0 < size < _UNKNOWN_SIZE else None)
        if len(data) < at + size:
            return None
        if kind == b"fmt ":
            audio_format = _wav_format(bytes(data[at : at + min(size, _FMT_EXTENSIBLE_BYTES)]))
        at += size + size % 2
    return None


@lru_cache(maxsize=64)
def _wav_format(body: bytes) -> AudioFormat | None:
    if len(body) < _FMT_BYTES:
        return None
    tag, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= _FMT_EXTENSIBLE_BYTES:
        (tag,) = struct.unpack_from("<H", body, 24)
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None or block != bits // 8 * channels:
        return None
    return AudioFormat(encoding, rate, channels)
