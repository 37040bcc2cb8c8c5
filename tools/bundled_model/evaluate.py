"""Word error rates of a ggml model on the repository's test recordings, through pywhispercpp.

    python evaluate.py [MODEL] [--threads N] [--json FILE]

Prints them by voice, duration, noise and encoder context, with flash attention on and off, each with a 95 %
confidence interval (bootstrap over utterances). Also prints on how many signals without speech the model writes text,
and the error of word times. Needs jiwer in addition to the package's own dependencies.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import jiwer
import numpy as np
import soundfile
from pywhispercpp.model import Model
from signals import SAMPLE_RATE, SIGNALS, pink, signals

from transcriber.worker.context import Fit, fitted
from transcriber.worker.engine import WhisperOptions
from transcriber.worker.engines.whispercpp import WhisperCppEngine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "ggml-dispatch-mini.bin"
FULL = 1500  # encoder positions of 20 ms
FITS_256 = 4.5  # seconds
LEAD, TRAIL = 3200, 4800  # samples around an utterance, as the daemon's windows have them
LATEST = 0.3  # seconds that a word time may be off


@dataclass(frozen=True)
class Utterance:
    """float32 mono 16 kHz and its words. `starts`: each word's first sample, if known."""

    samples: Samples
    words: str
    voice: str
    starts: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    def with_noise(self, decibels: float, seed: int) -> Utterance:
        """Add pink noise so many decibels below the utterance's mean power."""
        noise = pink(len(self.samples), np.random.default_rng(seed))
        level = math.sqrt(float((self.samples**2).mean())) * 10 ** (-decibels / 20)
        return Utterance(self.samples + noise * np.float32(level), self.words, self.voice, self.starts)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A word error rate with the bounds of its 95 % confidence interval."""

    wer: float
    low: float
    high: float
    words: int
    utterances: int


@dataclass(frozen=True)
class Report:
    rates: dict[str, Rate]
    text_without_speech: list[str]
    word_time_errors: list[float]
    words_timed: int

    @property
    def times_within(self) -> float:
        """Share of the timed words that were found and lie within `LATEST` of the truth."""
        return sum(abs(e) <= LATEST for e in self.word_time_errors) / self.words_timed


def utterances(name: str) -> list[Utterance]:
    path = ROOT / "tests" / "data" / name
    samples, _ = soundfile.read(path.with_suffix(".flac"), dtype="float32")
    found = []
    for row in json.loads(path.with_suffix(".json").read_text()):
        first, end = (round(row[bound] * SAMPLE_RATE) for bound in ("start", "end"))
        starts = tuple(round(s * SAMPLE_RATE) - first + LEAD for s in row.get("starts", ()))
        found.append(
            Utterance(np.ascontiguousarray(samples[first - LEAD : end + TRAIL]), row["words"], row["voice"], starts)
        )
    return found


class Recognizer:
    """A model that decodes one utterance on each thread, which is twice as fast as two threads for one.

    `flash`: with flash attention.
    """

    def __init__(self, path: Path, threads: int, *, flash: bool = False) -> None:
        self._flash = flash
        self._idle: SimpleQueue[Model] = SimpleQueue()
        self._threads = ThreadPoolExecutor(threads)
        for _ in range(threads):
            self._idle.put(
                Model(
                    str(path),
                    n_threads=1,
                    print_progress=False,
                    redirect_whispercpp_logs_to=None,
                    no_context=True,
                    temperature_inc=0.0,
                    context_params={"flash_attn": flash},
                )
            )

    def texts(self, spoken: Iterable[Samples], context: int = 0, **parameters: object) -> list[str]:
        """Transcribe each with so many encoder positions; 0 fits them to the samples as the daemon does."""
        return list(self._threads.map(lambda samples: self._text(samples, context, parameters), spoken))

    def _text(self, samples: Samples, context: int, parameters: dict[str, Any]) -> str:
        positions = context or fitted(len(samples), Fit.TIGHT, flash=self._flash)
        usual: dict[str, Any] = {"no_timestamps": False, "initial_prompt": ""}  # else they persist between calls
        model = self._idle.get()
        try:
            segments = model.transcribe(
                samples, audio_ctx=0 if positions == FULL else positions, **(usual | parameters)
            )
        finally:
            self._idle.put(model)
        return " ".join(" ".join(segment.text for segment in segments).split())


@dataclass(frozen=True)
class Answer:
    """An utterance and the recognised text."""

    utterance: Utterance
    text: str


def answers(recognizer: Recognizer, spoken: list[Utterance], context: int = 0, **parameters: object) -> list[Answer]:
    texts = recognizer.texts((u.samples for u in spoken), context, **parameters)
    return [Answer(u, text) for u, text in zip(spoken, texts, strict=True)]


def rate(answered: list[Answer]) -> Rate:
    """Word error rate, and its interval from a thousand redraws of the utterances."""
    measured = [jiwer.process_words(a.utterance.words, a.text) for a in answered]
    errors = np.array([m.substitutions + m.deletions + m.insertions for m in measured])
    words = np.array([len(a.utterance.words.split()) for a in answered])
    drawn = np.random.default_rng(0).integers(0, len(answered), (1000, len(answered)))
    low, high = np.percentile(errors[drawn].sum(1) / words[drawn].sum(1), [2.5, 97.5])
    return Rate(
        wer=float(errors.sum() / words.sum()),
        low=float(low),
        high=float(high),
        words=int(words.sum()),
        utterances=len(answered),
    )


def heard_voices() -> list[Utterance]:
    return utterances("heldout") + utterances("heldout2")


def by_voice(recognizer: Recognizer) -> dict[str, Rate]:
    """Rates by voice and by duration."""
    heard, unheard = answers(recognizer, heard_voices()), answers(recognizer, utterances("unheard"))
    rates = {"voices heard in training": rate(heard), "voices never heard": rate(unheard)}
    for name, answered in (("", heard), (", never heard", unheard)):
        voices = [a.utterance.voice.partition("+")[0] for a in answered]  # espeak-ng's variants count as one
        for voice in sorted(set(voices)):
            rates[f"  {voice}{name}"] = rate([a for a, v in zip(answered, voices, strict=True) if v == voice])
    for low, high in ((0, 2), (2, 3), (3, 4.5), (4.5, 10)):
        rates[f"  {low} to {high} s"] = rate([a for a in heard if low <= a.utterance.seconds < high])
    return rates


def by_fit(recognizer: Recognizer) -> dict[str, Rate]:
    """Rates with the context fitted to each utterance, and with the full one."""
    spoken = heard_voices()
    return {
        "context fitted": rate(answers(recognizer, spoken)),
        "context full": rate(answers(recognizer, spoken, FULL)),
    }


def by_noise(recognizer: Recognizer, *decibels: float) -> dict[str, Rate]:
    """Rates at signal-to-noise ratios."""
    return {
        f"{db} dB above pink noise": rate(
            answers(recognizer, [u.with_noise(db, seed) for seed, u in enumerate(heard_voices())])
        )
        for db in decibels
    }


def by_context(path: Path, threads: int, most: int | None = None) -> dict[str, Rate]:
    """Rates on (at most so many) utterances that fit the smallest encoder context, with flash attention on and off."""
    short = [u for u in heard_voices() if u.seconds <= FITS_256][:most]
    return {
        f"audio_ctx {context}, flash attention {'on' if flash else 'off'}": rate(answers(model, short, context))
        for flash in (True, False)
        for model in [Recognizer(path, threads, flash=flash)]
        for context in (256, 512, FULL)
    }


def by_mode(recognizer: Recognizer, most: int | None = None) -> dict[str, Rate]:
    """Rates on (at most so many) utterances without timestamps, and after a prompt."""
    prompt = "turn left two seven zero degrees and hold"
    spoken = heard_voices()[:most]
    return {
        "no timestamps": rate(answers(recognizer, spoken, no_timestamps=True)),
        "after a prompt": rate(answers(recognizer, spoken, initial_prompt=prompt)),
    }


def without_speech(recognizer: Recognizer, longest: float = math.inf) -> list[str]:
    """The signals without speech, of at most so many seconds, that gave text, with that text."""
    found = [(name, samples) for name, samples in signals() if len(samples) <= longest * SAMPLE_RATE]
    names, samples = zip(*found, strict=True)
    return [f"{name}: {text}" for name, text in zip(names, recognizer.texts(samples), strict=True) if text]


def word_times(path: Path) -> tuple[list[float], int]:
    """Errors of word starts by the daemon's word timing, in seconds; and the number of words spoken."""
    engine = WhisperCppEngine(WhisperOptions(path=path, threads=1))
    errors: list[float] = []
    spoken = utterances("timed")
    for utterance in spoken:
        heard = [word for segment in engine.transcribe(utterance.samples, None).segments for word in segment.words]
        aligned = jiwer.process_words(utterance.words, " ".join(w.text for w in heard) or "-").alignments[0]
        for chunk in aligned:
            if chunk.type == "equal":
                for k in range(chunk.ref_end_idx - chunk.ref_start_idx):
                    truth = utterance.starts[chunk.ref_start_idx + k]
                    errors.append((heard[chunk.hyp_start_idx + k].start - truth) / SAMPLE_RATE)
    return errors, sum(len(u.starts) for u in spoken)


def evaluate(path: Path, threads: int) -> Report:
    plain = Recognizer(path, threads)
    rates = by_voice(plain) | by_fit(plain) | by_noise(plain, 25, 15, 5) | by_context(path, threads) | by_mode(plain)
    return Report(rates, without_speech(plain), *word_times(path))


def table(report: Report) -> str:
    lines = [f"{'':38} {'WER':>6}   95 % interval   words"]
    for name, r in report.rates.items():
        lines.append(f"{name:38} {r.wer:6.1%}   {r.low:5.1%} to {r.high:5.1%}  {r.words:6}")
    invented = report.text_without_speech
    lines.append(f"no text on {SIGNALS - len(invented)} of {SIGNALS} signals without speech")
    lines += [f"    {case}" for case in invented]
    lines.append(f"word starts within {LATEST} s of the truth: {report.times_within:.1%} of {report.words_timed} words")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Word error rates of a ggml model on the test recordings.")
    parser.add_argument("model", type=Path, nargs="?", default=MODEL)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the report there, too")
    options = parser.parse_args()
    report = evaluate(options.model, options.threads)
    print(table(report))
    if options.json:
        options.json.write_text(json.dumps(asdict(report), indent=1) + "\n")


if __name__ == "__main__":
    main()
