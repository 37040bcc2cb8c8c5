"""Audio files (WAV, FLAC, OGG) to blocks of float32, however long they are."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.errors import RecordingError
from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS")
# WAV's format tag and bits a sample, of what can go out as it is: https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats
_ENCODINGS = {(1, 16): Encoding.S16LE, (3, 32): Encoding.F32LE, (6, 8): Encoding.ALAW, (7, 8): Encoding.MULAW}
_EXTENSIBLE = 0xFFFE  # the tag that says: the real one comes later
_FMT_BYTES, _FMT_EXTENSIBLE_BYTES = 16, 26
# A program that writes into a pipe cannot know the size: it writes 0, or something near the largest number of 31 or 32
# bits. A true size beyond this is no loss: then the end of the input ends the samples.
_UNKNOWN_SIZE = 2_000_000_000


def is_recording(data: bytes) -> bool:
    """Whether these bytes begin a WAV, FLAC or OGG file; raw PCM begins otherwise but for one case in billions."""
    return data[:4] in _MAGIC


@dataclass(frozen=True, slots=True)
class WavHead:
    """What a WAV file says before its samples.

    `format` is None when the samples cannot go out as they are (24 bits, say); `start` is the first one's byte, `size`
    how many bytes of them there are, None when that was not known when the head was written.
    """

    format: AudioFormat | None
    start: int
    size: int | None


def wav_head(data: bytes) -> WavHead | None:
    """Read the head of a WAV file from its first bytes. None: more of them are needed."""
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
            audio_format = _wav_format(data[at : at + size])
        at += size + size % 2
    return None


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


class Recording:
    """An open audio file. Attributes: `rate` in Hz, `channels`, `frames` (sample frames in all)."""

    def __init__(self, source: Path | bytes) -> None:
        """Open a path or a file's bytes. Raises `RecordingError` when it is not audio that libsndfile can decode."""
        self._name = "recording" if isinstance(source, bytes) else str(source)
        try:
            if isinstance(source, Path):
                source.open("rb").close()  # libsndfile calls every failure to open a file a "System error"
            self._file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source))
        except OSError as error:
            raise RecordingError(self._name, (error.strerror or str(error)).lower()) from error
        except TypeError as error:  # a name that ends in .raw: there is no head to say what the bytes mean
            raise RecordingError(self._name, "raw PCM can only be read from standard input") from error
        except soundfile.SoundFileError as error:
            reason = getattr(error, "error_string", str(error)).rstrip(".").lower()
            raise RecordingError(self._name, f"no WAV, FLAC or OGG that can be decoded ({reason})") from error
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.frames: int = self._file.frames

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    def blocks(self, frames: int) -> Iterator[NDArray[np.float32]]:
        """Yield the audio in blocks of at most `frames` sample frames, float32 of shape (n, channels)."""
        try:
            while len(block := self._file.read(frames, dtype="float32", always_2d=True)):
                yield block
        except soundfile.SoundFileError as error:
            raise RecordingError(self._name, f"damaged ({error})") from error

    def pcm(self, frames: int) -> Iterator[bytes]:
        """Yield the audio as interleaved pcm_s16le, in pieces of at most `frames` sample frames."""
        for block in self.blocks(frames):
            yield np.clip(np.rint(block * 32768), -32768, 32767).astype("<i2").tobytes()


def read_16k(path: Path) -> NDArray[np.float32]:
    """Read a whole recording as float32 mono at 16 kHz, shape (n,). Raises `RecordingError`."""
    recording = Recording(path)
    blocks = [block.mean(axis=1) for block in recording.blocks(recording.rate)]
    mono = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return np.asarray(soxr.resample(mono, recording.rate, SAMPLE_RATE, "HQ"), np.float32)
