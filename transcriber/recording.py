"""Reads audio files of any length (WAV, FLAC, OGG, MP3, AIFF, ...) in blocks of float32."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from transcriber.domain.containers import DECODABLE, FRAMES_BYTES, name_of
from transcriber.domain.errors import RecordingError
from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS")


def is_recording(data: bytes) -> bool:
    """Whether these bytes begin a file that can be decoded. Raw PCM is mistaken for one once in billions of cases."""
    return data[:4] in _MAGIC or name_of(data) in DECODABLE


class Recording:
    """An open audio file. Attributes: `rate` in Hz, `channels`, `frames` (sample frames in all)."""

    def __init__(self, source: Path | bytes | IO[bytes]) -> None:
        """Open a path, a file's bytes or an open file. Raises `RecordingError` if libsndfile cannot decode it."""
        self._name = str(source) if isinstance(source, Path) else "recording"
        try:
            if isinstance(source, Path):
                source.open("rb").close()  # libsndfile calls any failure to open a file a "System error"
            self._file = soundfile.SoundFile(str(source) if isinstance(source, Path) else _as_opened(source))
        except OSError as error:
            raise RecordingError(self._name, (error.strerror or str(error)).lower()) from error
        except TypeError as error:  # a name that ends in .raw: such a file has no header
            raise RecordingError(self._name, "raw PCM can only be read from standard input") from error
        except soundfile.SoundFileError as error:
            raise RecordingError(self._name, _why_not(source, error)) from error
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
        """Yield the audio as interleaved pcm_s16le, in blocks of at most `frames` sample frames."""
        for block in self.blocks(frames):
            yield np.clip(np.rint(block * 32768), -32768, 32767).astype("<i2").tobytes()


def _as_opened(source: bytes | IO[bytes]) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _why_not(source: Path | bytes | IO[bytes], error: soundfile.SoundFileError) -> str:
    """Say what a file is that libsndfile cannot open."""
    with contextlib.ExitStack() as closed:
        file = closed.enter_context(source.open("rb")) if isinstance(source, Path) else _as_opened(source)
        file.seek(0)
        kind = name_of(file.read(FRAMES_BYTES))
    if kind not in {None, "text", *DECODABLE}:
        return f"is {kind}; allowed are {', '.join(sorted(DECODABLE))}"
    reason = getattr(error, "error_string", str(error)).rstrip(".").lower()
    return f"no WAV, FLAC or OGG that can be decoded ({reason})"


def read_16k(path: Path) -> NDArray[np.float32]:
    """Read a whole recording as float32 mono at 16 kHz, shape (n,). Raises `RecordingError`."""
    recording = Recording(path)
    blocks = [block.mean(axis=1) for block in recording.blocks(recording.rate)]
    mono = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return np.asarray(soxr.resample(mono, recording.rate, SAMPLE_RATE, "HQ"), np.float32)
