"""Turns audio into the parts that workers transcribe."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transcriber.audio.cutting import Cut, Cutter
from transcriber.audio.intake import Intake
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.measurements import Counts
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.domain.wav import wav_head
from transcriber.gateway.problems import Problem
from transcriber.gateway.rest.media import check_range, is_file, open_media

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from transcriber.gateway.rest.media import Media
    from transcriber.gateway.rest.upload import Upload

_LONGEST_SECS = 30.0  # of a part: so much 16 kHz PCM fits into NATS's default max_payload of 1 MiB
_HEADERS = 5120  # bytes that a request's headers may need: a prompt of 896 characters in UTF-8, trace context, format
_PART_FORMAT = AudioFormat(Encoding.S16LE, SAMPLE_RATE, 1)


@dataclass(frozen=True, slots=True)
class Part:
    """[start, end) of a channel, in seconds, as the PCM of one request."""

    channel: int
    start: float
    end: float
    format: AudioFormat
    pcm: bytes

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`max_payload`: bytes of one request. `max_audio`: seconds of a recording."""

    max_payload: int
    max_audio: float


def whole(data: bytes, raw: AudioFormat | None, limits: Limits, *, each_channel: bool = False) -> Part | None:
    """Return a short WAV or short PCM as it is: what a worker takes needs no decoding here. None for anything else."""
    start, size, chosen = 0, len(data), raw
    if data[:4] == b"RIFF":
        head = wav_head(data)
        if head is None or head.format is None:
            return None
        start, chosen = head.start, head.format
        size = min(size - start, head.size if head.size is not None else size)
    elif raw is not None and is_file(data):
        return None
    if chosen is None or (each_channel and chosen.channels > 1):
        return None
    check_range(chosen)
    frames = size // chosen.frame_bytes
    seconds = frames / chosen.rate
    size = frames * chosen.frame_bytes
    if not 0 < seconds <= min(_LONGEST_SECS, limits.max_audio) or size > limits.max_payload - _HEADERS:
        return None
    return Part(0, 0.0, seconds, chosen, data[start : start + size])


class PartReader:
    """Cuts an upload into parts, in time's order. It blocks: call it in a thread.

    `each_channel`: a lane of parts for each channel, else one for their mix.
    """

    def __init__(self, upload: Upload, raw: AudioFormat | None, limits: Limits, *, each_channel: bool) -> None:
        self._upload = upload
        self._raw = raw
        self._limits = limits
        self._each_channel = each_channel
        self._lock = threading.Lock()  # a request may be given up while a thread still reads
        self._parts = self._all()
        self.channels = 1

    def read(self) -> Part | None:
        """Return the next part, None at the end. Raises `Problem` as `open_media`, and 400 for too much audio."""
        with self._lock:
            return next(self._parts, None)

    def close(self) -> None:
        """Stop; nothing reads the upload from here on."""
        with self._lock:
            self._parts.close()

    def _all(self) -> Generator[Part]:
        media = open_media(self._upload, self._raw)
        self.channels = media.format.channels if self._each_channel else 1
        longest = min(_LONGEST_SECS, (self._limits.max_payload - _HEADERS) / (_PART_FORMAT.frame_bytes * SAMPLE_RATE))
        lanes = [_Lane(media.format, channel, round(longest * SAMPLE_RATE)) for channel in self._lanes()]
        frames = 0
        for block in self._blocks(media):
            frames += len(block) // media.format.frame_bytes
            for lane in lanes:
                yield from lane.push(block)
        total = round(frames * SAMPLE_RATE / media.format.rate)
        for lane in lanes:
            yield from lane.end(total)

    def _lanes(self) -> list[int | None]:
        return [*range(self.channels)] if self.channels > 1 else [None]

    def _blocks(self, media: Media) -> Iterator[bytes]:
        left = round(self._limits.max_audio * media.format.rate)
        for block in media.blocks():
            left -= len(block) // media.format.frame_bytes
            if left < 0:
                message = f"the audio is longer than GATEWAY_MAX_AUDIO_SECS={self._limits.max_audio:g}"
                raise Problem(400, message, code="audio_too_long", param="file")
            yield block


class _Lane:
    """One channel of a recording, or the mix of all (None), on its way to parts."""

    def __init__(self, audio: AudioFormat, channel: int | None, longest: int) -> None:
        self._format = audio
        self._channel = channel
        one = audio if channel is None else AudioFormat(audio.encoding, audio.rate, 1)
        self._intake = Intake(one, Counts())
        self._cutter = Cutter(longest)

    def push(self, block: bytes) -> Iterator[Part]:
        return map(self._part, self._cutter.push(self._intake.push(self._own(block))))

    def end(self, total: int) -> Iterator[Part]:
        """`total`: the recording's length in 16 kHz samples."""
        rest = self._cutter.push(self._intake.end(total))
        return map(self._part, [*rest, *self._cutter.flush()])

    def _own(self, block: bytes) -> bytes:
        if self._channel is None:
            return block
        size = self._format.frame_bytes
        samples = np.frombuffer(block, np.dtype((np.void, size // self._format.channels)))
        return samples[self._channel :: self._format.channels].tobytes()

    def _part(self, cut: Cut) -> Part:
        pcm = np.clip(np.rint(cut.samples * 32768), -32768, 32767).astype("<i2").tobytes()
        end = cut.start + len(cut.samples)
        return Part(self._channel or 0, cut.start / SAMPLE_RATE, end / SAMPLE_RATE, _PART_FORMAT, pcm)
