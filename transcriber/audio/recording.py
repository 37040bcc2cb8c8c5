"""Audio files (WAV, FLAC, OGG) to blocks of float32, however long they are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from transcriber.errors import RecordingError
from transcriber.messages import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS")


def is_recording(data: bytes) -> bool:
    """Whether these bytes begin a WAV, FLAC or OGG file; raw PCM begins otherwise but for one case in billions."""
    return data[:4] in _MAGIC


class Recording:
    """An open audio file. Attributes: `rate` in Hz, `channels`, `frames` (sample frames in all)."""

    def __init__(self, source: Path | bytes) -> None:
        """Open a path or a file's bytes. Raises `RecordingError` when it is not audio that libsndfile can decode."""
        self._name = "recording" if isinstance(source, bytes) else str(source)
        try:
            self._file = soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else str(source))
        except (soundfile.SoundFileError, OSError, TypeError) as error:
            if isinstance(source, Path) and not source.exists():
                raise RecordingError(self._name, "no such file") from error
            reason = f"no WAV, FLAC or OGG that can be decoded ({error})"
            raise RecordingError(self._name, reason) from error
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


def read_16k(path: Path) -> NDArray[np.float32]:
    """Read a whole recording as float32 mono at 16 kHz, shape (n,). Raises `RecordingError`."""
    recording = Recording(path)
    blocks = [block.mean(axis=1) for block in recording.blocks(recording.rate)]
    mono = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return np.asarray(soxr.resample(mono, recording.rate, SAMPLE_RATE, "HQ"), np.float32)
