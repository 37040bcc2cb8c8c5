"""`bench engine`: what the daemon's way of using Whisper costs against the plain one."""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pywhispercpp.model import Model

from transcriber.bench import calibrate, speech
from transcriber.bench.report import Report, table
from transcriber.bench.rig import environ_for
from transcriber.bench.words import error_rate
from transcriber.messages import SAMPLE_RATE, Window
from transcriber.settings import Settings, load
from transcriber.worker.engine import WhisperEngine
from transcriber.worker.one_thread import one_thread
from transcriber.worker.queue import Job, JobQueue, Outcome
from transcriber.worker.whisper import WhisperThread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transcriber.bench.speech import Material

_CUT_SECS = 5.0  # of the plain way: the daemon's own longest window by default
_BUDGET = 20.0  # seconds for these, as many as fit into it but one at least:
_PASSES = 3  # of each plain way over each recording
# Of the saturated queue. On a machine that others share a round strays by 2 to 4 %, and so does the best of them; the
# lower quartiles of what each window takes add up to within 0.5 %.
_ROUNDS = 16
_ROUND_SECS = 0.5  # of a round, at least: the thread's start and end are 1.3 ms of it
_LOOK_SECS = 0.001  # between two looks whether a thread has ended
_FOR_EVER = 1e9  # seconds: with this promise no window is ever too late

MEASURED = {
    "cpu": "CPU time of this process, all threads, over seconds of recording; the daemon's way with its resampling, "
    "VAD, queue, guards and second passes, the plain ones with the engine alone; each engine has decoded once before; "
    "the median pass counts, of three of the daemon's way to one of each plain one",
    "plain_cuts": "pywhispercpp with the daemon's threads and decoding flags, its default encoder context of 30 s, and "
    "flash attention, its default too and faster there, on every five seconds, silence too",
    "plain_cuts_same_flags": "the same without flash attention, as the daemon, whose contexts it does not suit",
    "plain_windows": "as plain cuts, on the daemon's windows",
    "daemon": "windows of speech, encoder context fitted to each",
    "WER": "word error rate against what is said in the bundled recording; words as digits count as wrong",
    "worker": "windows a second of the daemon's thread with a full queue over those of the same engine called in a "
    "plain loop, on the same windows, in turns; of each window's times, and of all between, the lower quartile",
}


@dataclass(frozen=True, slots=True)
class _Pass:
    """One way over one recording. Seconds."""

    cpu: float
    wall: float
    text: str


async def run(options: argparse.Namespace) -> Report:
    """Run all ways over both recordings, then the worker on a full queue."""
    settings = load(environ_for(None, **options.whisper))
    chosen = {
        "model": settings.whisper.path.stem,
        "threads": settings.whisper.threads,
        "recorded_seconds": options.seconds,
    }
    report = Report("engine", chosen, MEASURED)
    engine = WhisperEngine(settings.whisper)
    plain = {flash: _Plain(settings, flash=flash) for flash in (True, False)}
    found = {}
    for name, make in (("half_silence", speech.half_silent), ("speech_alone", speech.speech_alone)):
        material = make(options.seconds)
        ways = await _all_ways(engine, plain, settings, material)
        found[name] = _figures(ways, material, known=not options.random_weights)
    windows = speech.windows(speech.half_silent(options.seconds), settings.sessions.stream)
    worker = await _saturated(engine, windows)
    report.figures = {"recordings": found, "worker": worker}
    report.ratios = _ratios(found) | {"worker_over_bare_engine": worker["worker"] / worker["bare"]}
    report.tables = [_table(found, known=not options.random_weights)]
    report.tables.append(
        f"full queue: {worker['worker']:.2f} windows a second, the bare engine on the same windows {worker['bare']:.2f}"
    )
    return report


class _Plain:
    """pywhispercpp's own Model with the daemon's threads and decoding flags, and its default encoder context."""

    def __init__(self, settings: Settings, *, flash: bool) -> None:
        whisper = settings.whisper
        self._model = Model(
            str(whisper.path),
            context_params={"flash_attn": flash, "use_gpu": whisper.use_gpu},
            n_threads=whisper.threads,
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

    def text(self, samples: NDArray[np.float32]) -> str:
        return " ".join(segment.text for segment in self._model.transcribe(samples))


async def _all_ways(
    engine: WhisperEngine, plain: dict[bool, _Plain], settings: Settings, material: Material
) -> dict[str, _Pass]:
    heard = speech.at_16k(material)
    size = round(_CUT_SECS * SAMPLE_RATE)
    cuts = [heard[i : i + size] for i in range(0, len(heard), size)]
    windows = speech.windows(material, settings.sessions.stream)

    async def decode(parts: Sequence[NDArray[np.float32]], *, flash: bool = True) -> str:
        # Each in a call of its own: Ctrl-C has to wait for the one that runs.
        with one_thread() as call:
            return " ".join([await call(plain[flash].text, part) for part in parts])

    async def serve(worker: _Worker) -> str:
        outcomes = await worker.serve(speech.windows(material, settings.sessions.stream))
        return " ".join(outcome.recognition.text for outcome in outcomes if outcome.recognition)

    for flash in plain:
        await decode(cuts[:1], flash=flash)
    ways = {
        "plain_cuts": partial(decode, cuts),
        "plain_cuts_same_flags": partial(decode, cuts, flash=False),
        "plain_windows": partial(decode, [window.samples for window in windows]),
    }
    passes: dict[str, list[_Pass]] = {name: [] for name in (*ways, "daemon")}
    began = time.monotonic()
    while len(passes["plain_cuts"]) < _PASSES and (not passes["daemon"] or time.monotonic() - began < _BUDGET):
        # The daemon's way behind each plain one: it takes an eighth of the time, in which the machine may be slow.
        for name, way in ways.items():
            passes[name].append(await _timed(way()))
            async with _Worker(engine, windows[0].samples) as worker:
                passes["daemon"].append(await _timed(serve(worker)))
    return {name: sorted(done, key=lambda p: p.cpu)[(len(done) - 1) // 2] for name, done in passes.items()}


async def _timed(work: Awaitable[str]) -> _Pass:
    wall, cpu = time.monotonic(), time.process_time()
    text = await work
    return _Pass(time.process_time() - cpu, time.monotonic() - wall, text)


class _Worker:
    """The daemon's thread with an engine that is loaded already, warmed up on some samples; it serves once.

    The thread is gone at the end, and with it its OpenMP team: see `one_thread`.
    """

    def __init__(self, engine: WhisperEngine, samples: NDArray[np.float32]) -> None:
        self._thread = WhisperThread(lambda: engine, _FOR_EVER)
        self._samples = samples

    async def __aenter__(self) -> Self:
        await self._thread.start(self._samples, 1.0)  # the RTF is given, so that nothing is measured
        return self

    async def __aexit__(self, error: object, *_: object) -> None:
        while error is None and self._thread.alive:  # noqa: ASYNC110 - a thread sets no event after its end
            await asyncio.sleep(_LOOK_SECS)

    async def serve(self, windows: Sequence[Window]) -> list[Outcome]:
        """Work through a queue that holds them all."""
        queue = JobQueue(len(windows))
        outcomes: list[Outcome] = []
        for window in windows:
            queue.try_put(Job(window, outcomes.append))
        queue.close()
        self._thread.serve(queue)
        await self._thread.finished.wait()
        return outcomes


async def _saturated(engine: WhisperEngine, windows: Sequence[Window]) -> dict[str, float]:
    """Windows a second through the daemon's thread, and through the engine in a plain loop."""

    async def plainly() -> list[float]:
        with one_thread() as call:
            return [await call(calibrate.seconds, engine, window) for window in windows]

    windows = [*windows] * math.ceil(_ROUND_SECS / sum(await plainly()))
    began = time.monotonic()
    bare: list[list[float]] = []
    served: list[list[float]] = []
    while len(bare) < _ROUNDS and (not bare or time.monotonic() - began < _BUDGET):
        bare.append(await plainly())
        async with _Worker(engine, windows[0].samples) as worker:
            before = time.monotonic()
            inside = [outcome.processing for outcome in await worker.serve(windows)]
            served.append([*inside, time.monotonic() - before - sum(inside)])
    count = len(windows)
    return {"windows": count, "bare": count / _usual(bare), "worker": count / _usual(served)}


def _usual(rounds: list[list[float]]) -> float:
    """The sum of what each part of a round takes: the lower quartile, as other programs only make it slower."""
    return float(np.quantile(rounds, 0.25, axis=0).sum())


def _figures(ways: dict[str, _Pass], material: Material, *, known: bool) -> dict[str, Any]:
    length = material.seconds
    return {
        "recorded_seconds": length,
        "ways": {
            name: {
                "cpu_seconds_a_second": way.cpu / length,
                "wall_seconds_a_second": way.wall / length,
                "wer": error_rate(material.words, way.text) if known else None,
            }
            for name, way in ways.items()
        },
    }


def _ratios(found: dict[str, Any]) -> dict[str, float]:
    ratios: dict[str, float] = {}
    for recording, figures in found.items():
        cpu = {name: way["cpu_seconds_a_second"] for name, way in figures["ways"].items()}
        ours = cpu.pop("daemon")
        ratios |= {f"{name}_over_daemon_{recording}": value / ours for name, value in cpu.items()}
    return ratios


def _table(found: dict[str, Any], *, known: bool) -> str:
    head = ("recording", "way", "CPU s/s", "wall s/s", "WER")
    rows = [
        (
            recording.replace("_", " "),
            name.replace("_", " "),
            f"{way['cpu_seconds_a_second']:.4f}",
            f"{way['wall_seconds_a_second']:.4f}",
            f"{way['wer']:.3f}" if known else "-",
        )
        for recording, figures in found.items()
        for name, way in figures["ways"].items()
    ]
    return table(head, rows)
