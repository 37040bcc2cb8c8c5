"""The audio of the benchmarks: the bundled recording, and materials made from its utterances and pauses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from transcriber.audio.stream import AudioStream
from transcriber.domain.chunks import AudioFormat, Chunk, Encoding
from transcriber.domain.timeline import SAMPLE_RATE, Origin, Window
from transcriber.models import store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transcriber.audio.segmenter import StreamOptions

_MARGIN = 0.1  # seconds kept around an utterance, so that no sound is cut off; the shortest pause is 0.9 s
_CHUNK_SECS = 0.1  # a chunk's length
_FULL_SCALE = 32_768  # s16


@dataclass(frozen=True, slots=True)
class Utterance:
    """Somebody speaks from `start` to `end`, in seconds of the material."""

    start: float
    end: float
    words: str


@dataclass(frozen=True, slots=True)
class Material:
    """Float32 mono in [-1, 1] at `rate` Hz, and what is said in it."""

    samples: NDArray[np.float32]
    rate: int
    utterances: tuple[Utterance, ...]

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @property
    def words(self) -> str:
        return " ".join(u.words for u in self.utterances)

    def cut(self, start: float, end: float) -> NDArray[np.float32]:
        return self.samples[round(start * self.rate) : round(end * self.rate)]

    def pcm(self) -> bytes:
        """The samples as pcm_s16le."""
        scaled = np.rint(self.samples * _FULL_SCALE)
        return np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2").tobytes()


def recording() -> Material:
    """The bundled recording as it is: utterances with pauses between them, two thirds of it speech."""
    samples, rate = soundfile.read(store.bundled("demo.flac"), dtype="float32")
    rows = json.loads(store.bundled("demo.json").read_text())
    return Material(samples, rate, tuple(Utterance(**row) for row in rows))


def speech_alone(seconds: float) -> Material:
    """At least `seconds` of utterances without pauses between them."""
    source = recording()
    return _joined(source, seconds, lambda _length: np.zeros(0, np.float32))


def half_silent(seconds: float) -> Material:
    """At least `seconds` of utterances, each with an equally long pause of the recording's background after it."""
    source = recording()
    first, second = source.utterances[:2]
    background = source.cut(first.end + _MARGIN, second.start - _MARGIN)
    return _joined(source, seconds, lambda length: np.resize(background, length))


def lengthened(source: Material, seconds: float) -> Material:
    """The same with more of its background at the end, `seconds` long in all."""
    first, second = source.utterances[:2]
    background = source.cut(first.end + _MARGIN, second.start - _MARGIN)
    more = round(seconds * source.rate) - len(source.samples)
    samples = np.concatenate([source.samples, np.resize(background, max(0, more))])
    return Material(samples, source.rate, source.utterances)


def with_silence(material: Material) -> Material:
    """The same, followed by equally long digital silence."""
    samples = np.concatenate([material.samples, np.zeros_like(material.samples)])
    return Material(samples, material.rate, material.utterances)


def resampled(material: Material, rate: int) -> Material:
    """The same at another rate, in Hz."""
    if rate == material.rate:
        return material
    samples = np.asarray(soxr.resample(material.samples, material.rate, rate, "HQ"), np.float32)
    return Material(samples, rate, material.utterances)


def at_16k(material: Material) -> NDArray[np.float32]:
    """The samples at 16 kHz."""
    return resampled(material, SAMPLE_RATE).samples


def windows(material: Material, options: StreamOptions) -> list[Window]:
    """Cut the material as the daemon does: resampled, then cut to windows of speech."""
    return list(_windows(material, options))


def _windows(material: Material, options: StreamOptions) -> Iterator[Window]:
    pcm, audio = material.pcm(), AudioFormat(Encoding.S16LE, material.rate, 1)
    step = round(material.rate * _CHUNK_SECS) * audio.frame_bytes
    chunks = (Chunk("bench", audio, pcm[i : i + step]) for i in range(0, len(pcm), step))
    stream: AudioStream | None = None
    for chunk in chunks:
        if stream is None:
            stream = AudioStream(Origin("bench", "bench"), options, chunk)
        yield from (piece for piece in stream.push(chunk) if isinstance(piece, Window))
    if stream is not None:
        yield from (piece for piece in stream.flush() if isinstance(piece, Window))


def _joined(source: Material, seconds: float, pause: Callable[[int], NDArray[np.float32]]) -> Material:
    """Join the source's utterances, and repeat them as needed."""
    parts: list[NDArray[np.float32]] = []
    said: list[Utterance] = []
    frames = 0
    for utterance in cycle(source.utterances):
        part = source.cut(utterance.start - _MARGIN, utterance.end + _MARGIN)
        begin = frames / source.rate + _MARGIN
        said.append(Utterance(begin, begin + utterance.end - utterance.start, utterance.words))
        parts += [part, pause(len(part))]
        frames += len(parts[-2]) + len(parts[-1])
        if frames >= seconds * source.rate:
            return Material(np.concatenate(parts), source.rate, tuple(said))
    raise AssertionError("the bundled recording holds utterances")
