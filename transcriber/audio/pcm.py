"""Decodes PCM bytes to float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from transcriber.domain.chunks import AudioFormat, Encoding

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _mulaw_table() -> NDArray[np.float32]:
    """ITU-T G.711 mu-law: bits inverted, sign, 3-bit exponent, 4-bit mantissa, bias 132, 14-bit scale times 4."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 0x0F).astype(np.int32) << 3) + 132 << ((code >> 4) & 7)) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.float32) / np.float32(32768)


def _alaw_table() -> NDArray[np.float32]:
    """ITU-T G.711 A-law: even bits inverted, sign, 3-bit exponent, 4-bit mantissa, 13-bit scale times 8."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = ((code >> 4) & 7).astype(np.int32), (code & 0x0F).astype(np.int32)
    magnitude = np.where(exponent, (mantissa * 16 + 264) << np.maximum(exponent - 1, 0), mantissa * 16 + 8)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.float32) / np.float32(32768)


_TABLES = {Encoding.MULAW: _mulaw_table(), Encoding.ALAW: _alaw_table()}


def decode(pcm: bytes, audio_format: AudioFormat) -> tuple[NDArray[np.float32], int]:
    """Decode raw PCM.

    `pcm` is a whole number of sample frames. Returns interleaved float32 in [-1, 1] of shape (frames * channels,), and
    how many samples were repaired. NaN becomes 0; infinite and out-of-range samples are clipped. Integer encodings
    need no repair.
    """
    repaired = 0
    match audio_format.encoding:
        case Encoding.S16LE:
            samples = np.frombuffer(pcm, "<i2").astype(np.float32)
            samples *= np.float32(1 / 32768)
        case Encoding.F32LE:
            samples = np.frombuffer(pcm, "<f4").astype(np.float32)
            # Also False for NaN, as no comparison with NaN holds.
            good = np.abs(samples) <= 1
            if not good.all():
                repaired = int(np.count_nonzero(~good))
                samples = np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
        case encoding:
            samples = _TABLES[encoding][np.frombuffer(pcm, np.uint8)]
    return samples, repaired
