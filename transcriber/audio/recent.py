"""Remembers a thin sample of a stream's last ten seconds: enough to tell repeated audio from new audio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.domain.chunks import Encoding

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from transcriber.domain.chunks import AudioFormat

_A_SECOND = 100  # probes: speech changes between two of them, and the shortest usual chunk, 10 ms, has one
_KEPT = 10 * _A_SECOND  # an overlap farther back than 10 s is a restart in any case (P-15)
_RUNS = 16  # a hole or a change of format begins a new one; the oldest are forgotten
_CODES: Mapping[Encoding, Literal["B", "H", "I"]] = {
    Encoding.S16LE: "H",
    Encoding.F32LE: "I",
    Encoding.MULAW: "B",
    Encoding.ALAW: "B",
}


@dataclass(slots=True)
class _Run:
    """Contiguous audio of one format: the first channel's samples at frames `n * step`, from `first * step` on."""

    format: AudioFormat
    first: int
    probes: bytearray

    @property
    def step(self) -> int:
        return _step(self.format)

    @property
    def width(self) -> int:
        return self.format.frame_bytes // self.format.channels

    @property
    def end(self) -> int:
        return self.first + len(self.probes) // self.width


class RecentAudio:
    """Remembers up to 20 s in 2 to 8 KiB. Counts frames as `Audio-Offset` does."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def add(self, audio_format: AudioFormat, frame: int, pcm: bytes) -> None:
        """Remember audio whose first frame is `frame`."""
        first, probes = _probe(audio_format, frame, pcm)
        if not probes:
            return
        last = self._runs[-1] if self._runs else None
        if last is None or last.format != audio_format or last.end != first:
            self._runs.append(_Run(audio_format, first, bytearray(probes)))
            del self._runs[:-_RUNS]
            return
        last.probes += probes
        if (extra := last.end - last.first - _KEPT) > _KEPT:
            del last.probes[: extra * last.width]
            last.first += extra
            del self._runs[:-1]

    def differs(self, audio_format: AudioFormat, frame: int, pcm: bytes) -> bool:
        """Whether other audio was heard at this place. False if nothing is remembered there."""
        first, probes = _probe(audio_format, frame, pcm)
        known = False
        for run in self._runs:
            if run.format != audio_format:
                continue
            width = run.width
            begin, end = max(first, run.first), min(first + len(probes) // width, run.end)
            if begin < end:
                known = True
                there = run.probes[(begin - run.first) * width : (end - run.first) * width]
                if there != probes[(begin - first) * width : (end - first) * width]:
                    return True
        return not known and any(_meet(run, audio_format, first, len(probes)) for run in self._runs)


def _step(audio_format: AudioFormat) -> int:
    return audio_format.rate // _A_SECOND


def _probe(audio_format: AudioFormat, frame: int, pcm: bytes) -> tuple[int, bytes]:
    """Return the number of the first probe at or after `frame`, and the samples of all probes in `pcm`."""
    step, channels = _step(audio_format), audio_format.channels
    first = -(-frame // step)
    samples = memoryview(pcm).cast(_CODES[audio_format.encoding])
    return first, samples[(first * step - frame) * channels :: step * channels].tobytes()


def _meet(run: _Run, audio_format: AudioFormat, first: int, size: int) -> bool:
    """Whether probes of another format overlap the run in time, by more than half a probe of rounding."""
    if run.format == audio_format:
        return False
    of_run, ours = run.step / run.format.rate, _step(audio_format) / audio_format.rate
    begin = max(run.first * of_run, first * ours)
    count = size // (audio_format.frame_bytes // audio_format.channels)
    return min(run.end * of_run, (first + count) * ours) - begin > 0.5 / _A_SECOND
