"""Ways to turn recordings into text, which `benchmarks engine` compares on the same recordings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pywhispercpp.model import Model

from benchmarks import speech
from transcriber.domain.timeline import SAMPLE_RATE, Window
from transcriber.worker.jobs import Job, Outcome
from transcriber.worker.one_thread import one_thread
from transcriber.worker.queue import JobQueue
from transcriber.worker.thread import WhisperThread

if TYPE_CHECKING:
    from benchmarks.speech import Material
    from transcriber.audio.segmenter import StreamOptions
    from transcriber.worker.engine import Engine, WhisperOptions


Samples: TypeAlias = NDArray[np.float32]

_CUT_SECS = 5.0  # of the plain way, which ignores where words end
_LOOK_SECS = 0.001  # between two checks whether a thread has ended
_FOR_EVER = 1e9  # seconds: with this L_max no window is late


@dataclass(frozen=True, slots=True)
class Piece:
    """One recording: the original, float32 mono at 16 kHz, and the daemon's windows of it."""

    material: Material
    samples: Samples
    windows: tuple[Window, ...]

    @classmethod
    def of(cls, material: Material, options: StreamOptions) -> Self:
        return cls(material, speech.at_16k(material), tuple(speech.windows(material, options)))

    def cuts(self) -> list[Samples]:
        """Cuts of five seconds, including silence."""
        size = round(_CUT_SECS * SAMPLE_RATE)
        return [self.samples[i : i + size] for i in range(0, len(self.samples), size)]

    def spoken(self) -> list[Samples]:
        """The samples of the daemon's windows."""
        return [window.samples for window in self.windows]

    def whole(self) -> list[Samples]:
        return [self.samples]


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over all recordings: seconds, and a text for each recording."""

    cpu: float
    wall: float
    texts: Sequence[str]


class Way(Protocol):
    """A way to turn recordings into text."""

    async def warm_up(self, piece: Piece) -> None:
        """Decode once, as the first time is slower."""
        ...

    async def hear(self, pieces: Sequence[Piece]) -> Pass:
        """Decode all recordings. Returns texts and times."""
        ...


async def _timed(work: Awaitable[Sequence[str]], clock: Callable[[], float]) -> Pass:
    wall, cpu = time.monotonic(), clock()
    texts = await work
    return Pass(clock() - cpu, time.monotonic() - wall, texts)


@dataclass(frozen=True, slots=True)
class Calls:
    """An engine called for one part after another. `clock`: CPU seconds of the process that decodes."""

    text: Callable[[Samples], str]
    parts: Callable[[Piece], Sequence[Samples]]
    clock: Callable[[], float] = time.process_time

    async def warm_up(self, piece: Piece) -> None:
        with one_thread() as call:
            await call(self.text, piece.cuts()[0])

    async def hear(self, pieces: Sequence[Piece]) -> Pass:
        return await _timed(self._texts([self.parts(piece) for piece in pieces]), self.clock)

    async def _texts(self, pieces: Sequence[Sequence[Samples]]) -> list[str]:
        # One call per part, because Ctrl-C has to wait for the running call.
        with one_thread() as call:
            return [" ".join([await call(self.text, part) for part in parts]) for parts in pieces]


class Plain:
    """pywhispercpp's Model with the daemon's threads and decoding flags, and its own default encoder context."""

    def __init__(self, options: WhisperOptions, *, flash: bool) -> None:
        self._model = Model(
            str(options.path),
            context_params={"flash_attn": flash, "use_gpu": options.use_gpu},
            n_threads=options.threads,
            language="en",
            no_context=True,
            temperature=0.0,
            temperature_inc=0.0,
            greedy={"best_of": 1},
            token_timestamps=True,
            suppress_blank=True,
            print_progress=False,
            print_realtime=False,
            print_timestamps=False,
        )

    def text(self, samples: Samples) -> str:
        return " ".join(segment.text for segment in self._model.transcribe(samples))


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon's resampling, VAD, windows, queue and thread, with an engine that is already loaded."""

    engine: Engine
    options: StreamOptions

    async def warm_up(self, piece: Piece) -> None:
        """Do nothing: each pass warms up its own thread."""

    async def hear(self, pieces: Sequence[Piece]) -> Pass:
        async with Worker(self.engine, pieces[0].cuts()[0]) as worker:
            return await _timed(self._texts(worker, pieces), time.process_time)

    async def _texts(self, worker: Worker, pieces: Sequence[Piece]) -> list[str]:
        windows = [speech.windows(piece.material, self.options) for piece in pieces]
        outcomes = iter(await worker.serve([window for found in windows for window in found]))
        heard = [[next(outcomes).recognition for _ in found] for found in windows]
        return [" ".join(recognition.text for recognition in found if recognition) for found in heard]


class Worker:
    """The daemon's thread with an engine that is already loaded, warmed up on some samples. It serves once.

    The thread ends with the block, and so does its OpenMP team (see `one_thread`).
    """

    def __init__(self, engine: Engine, samples: Samples) -> None:
        self._thread = WhisperThread(lambda: engine, _FOR_EVER)
        self._samples = samples

    async def __aenter__(self) -> Self:
        await self._thread.start(self._samples, 1.0)  # with an RTF, so that it measures nothing
        return self

    async def __aexit__(self, error: object, *_: object) -> None:
        while error is None and self._thread.alive:  # noqa: ASYNC110 - a thread sets no event after its end
            await asyncio.sleep(_LOOK_SECS)

    async def serve(self, windows: Sequence[Window]) -> list[Outcome]:
        """Work through a queue that holds all windows. Returns their outcomes in the same order."""
        queue = JobQueue(max(1, len(windows)), costs=self._thread.costs)
        outcomes: dict[int, Outcome] = {}
        for place, window in enumerate(windows):
            queue.try_put(Job(window=window, deliver=partial(outcomes.__setitem__, place)))
        queue.close()
        self._thread.serve(queue)
        await self._thread.finished.wait()
        return [outcomes[place] for place in range(len(windows))]
