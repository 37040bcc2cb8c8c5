"""Measures the daemon's word errors on real speech, against the same model on whole recordings."""

from __future__ import annotations

import argparse
import atexit
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import _pywhispercpp as whisper
from pywhispercpp.model import Model
from tqdm import tqdm

from benchmarks import machine, manifest, rivals
from benchmarks.report import Report
from benchmarks.rig import ALL_OF_IT, Rig, environ_for, rig
from benchmarks.score import Scorer
from benchmarks.tally import Case, Streamed, Whole, figures, tables
from transcriber.client.producer import Delivery
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.errors import CannotStart
from transcriber.domain.languages import AUTO
from transcriber.models import store
from transcriber.recording import Recording, read_16k
from transcriber.settings import Settings, load
from transcriber.worker.one_thread import one_thread

if TYPE_CHECKING:
    from benchmarks.manifest import Row
    from benchmarks.ways import Samples

_BEAM = 5  # faster-whisper's default
_CHUNK_SECS = 0.1  # a chunk's length
_SPEED = 50.0  # times real time: ten times the speed of a tiny model; a daemon can take in six times as much

MEASURED = {
    "daemon": "each recording is a session of its own, in chunks of 100 ms at its own rate and channels, one after the "
    "other and faster than real time; default settings except for the model, its threads, no partials, and enough time "
    "and room that nothing is dropped; texts of all finals",
    "whole": "pywhispercpp with its defaults and the same threads, on the whole recording at 16 kHz; for a CTranslate2 "
    "folder, faster-whisper in int8 with its default beam of 5",
    "WER": "words inserted, deleted and substituted, over words said, all recordings of a kind together; texts are "
    "normalised as by OpenAI; each letter counts as a word in languages without spaces",
    "CPU s/s": "CPU time of the process, all threads, over seconds of recording; for the daemon without its start",
    "fastest": "words (or letters, as above) per second of window, in the final that has most; people speak 2 to 4 "
    "words a second, and runaway text is far above that",
    "with text": "recordings without speech whose text has at least one word after normalisation",
}


async def run(options: argparse.Namespace) -> Report:
    """Stream all recordings, then decode them whole, then count."""
    scorer = Scorer()
    settings = load(environ_for(None, **options.whisper))
    rows, notes = _rows(options, settings)
    streamed = await _stream(options, rows)
    whole = await _decode_whole(options, rows, settings) if options.whole else [None] * len(rows)
    cases = [Case.of(scorer, *found) for found in zip(rows, streamed, whole, strict=True)]
    chosen = {
        "model": settings.whisper.path.name.removesuffix(".bin"),
        "threads": settings.whisper.threads,
        "files": len(rows),
        "seconds": sum(row.seconds for row in rows),
        "language": options.language,
    }
    report = Report(benchmark="fidelity", settings=chosen, measured=MEASURED)
    kinds = {kind: [c for c in cases if c.row.kind == kind] for kind in sorted({row.kind for row in rows})}
    english = [case for case in cases if case.row.english]
    report.figures = {
        "kinds": {kind: figures(found) for kind, found in kinds.items()},
        "english": figures(english) if english else None,
        "recordings": [case.figures() for case in cases],
    }
    report.notes = notes + _gaps(cases)
    report.ratios = _ratios(report.figures["english"])
    report.tables = tables(kinds, english, whole=options.whole)
    return report


def _rows(options: argparse.Namespace, settings: Settings) -> tuple[tuple[Row, ...], list[str]]:
    """Return the rows to play, and notes on those left out. Raises `CannotStart` if none is left."""
    rows = manifest.chosen(manifest.read(options.speech), options.kinds, options.most)
    if store.check(settings.whisper.path).multilingual:
        return rows, []
    kept = tuple(row for row in rows if not row.foreign)
    if not kept:
        model = settings.whisper.path.name.removesuffix(".bin")
        raise CannotStart(f"{model} knows English only, and all recordings are in other languages")
    skipped = sorted({row.kind for row in rows if row.foreign})
    return kept, [f"left out, as the model knows English only: {', '.join(skipped)}"] if skipped else []


def _language(row: Row, options: argparse.Namespace) -> str:
    """The language that an engine is given."""
    return AUTO if row.foreign and options.language == AUTO else row.language


async def _stream(options: argparse.Namespace, rows: Sequence[Row]) -> list[Streamed]:
    """Play every recording to one daemon."""
    environ = environ_for(None, PARTIAL_INTERVAL_SECS="0", **ALL_OF_IT, **options.whisper)
    async with rig(environ) as bench:
        return [
            await bench.guard(_play(bench, row, _language(row, options)))
            for row in tqdm(rows, "streamed", unit="file", leave=False, disable=None)
        ]


async def _play(bench: Rig, row: Row, language: str) -> Streamed:
    name = f"bench-{uuid4().hex[:8]}"
    delivery = Delivery(name, name, _SPEED, language)
    recording = Recording(row.path)
    audio_format = AudioFormat(Encoding.S16LE, recording.rate, recording.channels)
    before = machine.cpu_seconds(bench.daemon.pid)
    told = await bench.send(delivery, audio_format, recording.pcm(round(recording.rate * _CHUNK_SECS)))
    return Streamed.of(told, machine.cpu_seconds(bench.daemon.pid) - before)


async def _decode_whole(options: argparse.Namespace, rows: Sequence[Row], settings: Settings) -> list[Whole]:
    """Decode every recording whole, as a simple program would."""
    whisper.whisper_log_set(_ignore)
    atexit.register(whisper.whisper_log_set, None)  # or the bindings call it after the interpreter is gone

    def decode(text: Callable[[str, Samples], str], row: Row) -> Whole:
        samples = read_16k(row.path)
        before = time.process_time()
        said = text(_language(row, options), samples)
        return Whole(said, time.process_time() - before)

    with one_thread() as call:
        text = await call(_whole_decoder, settings.whisper.path, settings.whisper.threads)
        return [await call(decode, text, row) for row in tqdm(rows, "whole", unit="file", leave=False, disable=None)]


def _whole_decoder(path: Path, threads: int) -> Callable[[str, Samples], str]:
    """Return a function from language and recording to text: the usual program for the model's format."""
    if path.is_dir():
        faster_whisper = rivals.load_faster_whisper(path, threads)
        return lambda language, samples: faster_whisper(_BEAM, None if language == AUTO else language, samples)
    model = Model(str(path), n_threads=threads, print_progress=False)
    return lambda language, samples: " ".join(part.text for part in model.transcribe(samples, language=language))


def _ignore(*_: object) -> None:
    """Drop what whisper.cpp would print to standard error."""


def _gaps(cases: Sequence[Case]) -> list[str]:
    """A note if audio was dropped, because then the figures miss some speech."""
    lost: Counter[str] = Counter()
    for case in cases:
        lost.update(case.streamed.gaps)
    files = [case.row.path.name for case in cases if case.streamed.gaps]
    if not files:
        return []
    reasons = ", ".join(f"{seconds:.1f} s {reason}" for reason, seconds in lost.items())
    return [f"NOT ALL WAS HEARD: gaps of {reasons} in {', '.join(files)}"]


def _ratios(english: Any) -> dict[str, float]:  # noqa: ANN401 - figures, as they go into JSON
    """Quotients for the English speech."""
    ratios = {}
    for key, name in (("wer", "wer"), ("cpu_seconds_a_second", "cpu")):
        pair = english[key] if english else {}
        if pair.get("daemon") is not None and pair.get("whole"):
            ratios[f"daemon_over_whole_{name}_english"] = pair["daemon"] / pair["whole"]
    return ratios
