"""Compares the cost of the daemon's way to use Whisper with the plain way and with other programs."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from benchmarks import full_queue, manifest, rivals, speech
from benchmarks.report import Report, table
from benchmarks.rig import environ_for
from benchmarks.score import Errors, Scorer
from benchmarks.ways import Calls, Daemon, Pass, Piece, Plain, Way
from benchmarks.words import errors
from transcriber.settings import Settings, load
from transcriber.worker.engines.loading import load_engine
from transcriber.worker.engines.whispercpp import WhisperCppEngine

if TYPE_CHECKING:
    from benchmarks.speech import Material
    from transcriber.domain.timeline import Window

# Seconds for the passes over each recording, at least one of each way, and seconds for the full queue. They are fewer
# if `--seconds` asks for less audio, for a quick look.
_BUDGET = 20.0
_PASSES = 3
_SECONDS, _SPEECH_SECONDS = 30.0, 120.0  # seconds of audio: the bundled recording, and with --speech
_QUEUE_SECONDS = 30.0  # at least, of recordings whose windows fill the queue

MEASURED = {
    "cpu": "CPU time of this process, all threads, over seconds of recording; the daemon's way includes resampling, "
    "VAD, queue, guards and second passes, the plain ways only the engine; each engine has decoded once before; the "
    "median pass counts; while there is time, the daemon's way runs after each other way",
    "plain_cuts": "pywhispercpp with the daemon's threads and decoding flags, its default encoder context of 30 s and "
    "flash attention (its default, and faster there), on every five seconds, including silence",
    "plain_cuts_same_flags": "the same without flash attention, which does not suit the daemon's contexts; left out "
    "where the daemon uses flash attention too",
    "plain_windows": "as plain_cuts, on the daemon's windows",
    "daemon": "windows of speech, encoder context fitted to each",
    "ctranslate2_one_stream": "the same with the model of --ct2 in CTranslate2: int8, the same threads, one window at "
    "a time, beam search as the settings say",
    "ctranslate2_busy": "the same as with many streams: waiting windows are decoded together, without beam search",
    "WER": "word error rate against the bundled recording's text; numbers written as digits count as wrong",
    "worker": "windows a second of the daemon's thread with a full queue, over those of the same engine in a plain "
    "loop, on the same windows in turns; the lower quartile of each window's times, and of the time between windows",
}
_SPEECH_MEASURED = {
    "as_recorded": "English recordings of --speech, from its kinds in turn, each as a stream of its own",
    "half_silence": "the same, each followed by as much silence",
    "WER": "words inserted, deleted and substituted, over words said; texts are normalised as by OpenAI",
}


async def run(options: argparse.Namespace) -> Report:
    """Run all ways on both materials, then the worker on a full queue."""
    notes = rivals.missing(options) if options.speech or options.ct2 or options.whisper_server else []
    score = _scoring(options)
    materials = _materials(options)
    settings = load(environ_for(None, **options.whisper))
    chosen = {
        "model": settings.whisper.path.name.removesuffix(".bin"),
        "threads": settings.whisper.threads,
        "recorded_seconds": options.seconds or _SECONDS,
    }
    if options.speech:
        chosen["recorded_seconds"] = sum(one.seconds for one in materials["as_recorded"])
    budget = min(_BUDGET, options.seconds or _BUDGET)
    report = Report(benchmark="engine", settings=chosen, measured=_measured(options), notes=notes)
    engine = WhisperCppEngine(settings.whisper)
    found = {}
    async with AsyncExitStack() as stack:
        ways = await _ways(stack, options, engine, settings)
        for name, material in materials.items():
            pieces = [Piece.of(one, settings.sessions.stream) for one in material]
            found[name] = _figures(await _all_passes(ways, pieces, budget), material, score)
    worker = await full_queue.measure(engine, _queued(materials["half_silence"], settings), budget)
    report.figures = {"recordings": found, "worker": worker}
    report.ratios = _ratios(found) | {"worker_over_bare_engine": worker["worker"] / worker["bare"]}
    report.tables = [_table(found)]
    report.tables.append(
        f"full queue: {worker['worker']:.2f} windows a second, the bare engine on the same windows {worker['bare']:.2f}"
    )
    return report


def _measured(options: argparse.Namespace) -> dict[str, str]:
    found = MEASURED | (_SPEECH_MEASURED if options.speech else {})
    if options.ct2 is not None:
        found["faster_whisper"] = rivals.MEASURED["faster_whisper"]
    if rivals.server(options) is not None:
        found["whisper_server"] = rivals.MEASURED["whisper_server"]
    return found


def _scoring(options: argparse.Namespace) -> Callable[[str, str], Errors] | None:
    """The function that compares texts; None for random weights. Raises `CannotStart` without group `bench`."""
    if options.random_weights:
        return None
    if not options.speech:
        return errors
    scorer = Scorer()
    return lambda said, heard: scorer.errors(said, heard, "en")


def _materials(options: argparse.Namespace) -> dict[str, list[Material]]:
    """The two materials by name, each of one or more recordings."""
    if not options.speech:
        seconds = options.seconds or _SECONDS
        return {"half_silence": [speech.half_silent(seconds)], "speech_alone": [speech.speech_alone(seconds)]}
    rows = manifest.english_speech(manifest.read(options.speech), options.seconds or _SPEECH_SECONDS)
    recordings = [row.material() for row in rows]
    return {"half_silence": [speech.with_silence(one) for one in recordings], "as_recorded": recordings}


async def _ways(
    stack: AsyncExitStack, options: argparse.Namespace, engine: WhisperCppEngine, settings: Settings
) -> dict[str, Way]:
    """All ways by name, the daemon's last. The stack stops the programs that they run."""
    plain = Plain(settings.whisper, flash=True)
    ways: dict[str, Way] = {"plain_cuts": Calls(plain.text, Piece.cuts)}
    if not engine.flash:
        ways["plain_cuts_same_flags"] = Calls(Plain(settings.whisper, flash=False).text, Piece.cuts)
    ways["plain_windows"] = Calls(plain.text, Piece.spoken)
    if options.ct2 is not None:
        if rivals.has_faster_whisper():
            ways |= rivals.faster_whisper(options.ct2, settings.whisper.threads)
        second = dataclasses.replace(settings.whisper, path=options.ct2)
        one_stream = load_engine(dataclasses.replace(second, batch_size=1))
        busy = load_engine(dataclasses.replace(second, beam_size=1))
        ways["ctranslate2_one_stream"] = Daemon(one_stream, settings.sessions.stream)
        ways["ctranslate2_busy"] = Daemon(busy, settings.sessions.stream)
    if (program := rivals.server(options)) is not None:
        ways |= await stack.enter_async_context(rivals.whisper_server(program, settings.whisper))
    return ways | {"daemon": Daemon(engine, settings.sessions.stream)}


async def _all_passes(ways: Mapping[str, Way], pieces: Sequence[Piece], budget: float) -> dict[str, Pass]:
    """Each way's median pass."""
    *others, _ = ways
    for way in ways.values():
        await way.warm_up(pieces[0])
    passes: dict[str, list[Pass]] = {name: [] for name in ways}
    began = time.monotonic()

    def due(name: str) -> bool:
        return not passes[name] or time.monotonic() - began < budget

    while any(map(due, ways)) and len(passes[others[-1]]) < _PASSES:
        # The daemon's way runs after each other way. It takes an eighth of their time, so a slow moment distorts it
        # more.
        for name in filter(due, others):
            passes[name].append(await ways[name].hear(pieces))
            if due("daemon"):
                passes["daemon"].append(await ways["daemon"].hear(pieces))
    return {name: sorted(done, key=lambda p: p.cpu)[(len(done) - 1) // 2] for name, done in passes.items()}


def _queued(recordings: Sequence[Material], settings: Settings) -> list[Window]:
    """Windows for the full queue, from the first recordings that make `_QUEUE_SECONDS`."""
    windows: list[Window] = []
    total = 0.0
    for material in recordings:
        if windows and total >= _QUEUE_SECONDS:
            break
        windows += speech.windows(material, settings.sessions.stream)
        total += material.seconds
    return windows


def _figures(
    passes: Mapping[str, Pass], material: Sequence[Material], score: Callable[[str, str], Errors] | None
) -> dict[str, Any]:
    length = sum(one.seconds for one in material)

    def wer(texts: Sequence[str]) -> float | None:
        pairs = zip(material, texts, strict=True)
        return sum((score(one.words, text) for one, text in pairs), Errors()).rate if score else None

    return {
        "recorded_seconds": length,
        "files": len(material),
        "ways": {
            name: {
                "cpu_seconds_a_second": done.cpu / length,
                "wall_seconds_a_second": done.wall / length,
                "wer": wer(done.texts),
            }
            for name, done in passes.items()
        },
    }


def _ratios(found: Mapping[str, Any]) -> dict[str, float]:
    ratios: dict[str, float] = {}
    for recording, figures in found.items():
        cpu = {name: way["cpu_seconds_a_second"] for name, way in figures["ways"].items()}
        for daemon in [name for name in ("daemon", "ctranslate2_one_stream", "ctranslate2_busy") if name in cpu]:
            others = {name: value for name, value in cpu.items() if name != daemon}
            ratios |= {f"{name}_over_{daemon}_{recording}": value / cpu[daemon] for name, value in others.items()}
    return ratios


def _table(found: Mapping[str, Any]) -> str:
    head = ("recording", "way", "CPU s/s", "wall s/s", "WER")
    rows = [
        (
            recording.replace("_", " "),
            name.replace("_", " "),
            f"{way['cpu_seconds_a_second']:.4f}",
            f"{way['wall_seconds_a_second']:.4f}",
            "-" if way["wer"] is None else f"{way['wer']:.3f}",
        )
        for recording, figures in found.items()
        for name, way in figures["ways"].items()
    ]
    return table(head, rows)
