"""Training windows: speech as changed by microphones, rooms and lines, and signals without speech."""

from __future__ import annotations

import bisect
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import signal
from sentences import VOCABULARY, held_out, unlike
from voices import SAMPLE_RATE, UNKNOWN

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

LATEST_START = SAMPLE_RATE  # whisper.cpp allows a first timestamp of at most 1 s
HEARD_SHARE = 0.75  # of a word: a word that is cut after this much still counts as said
TAIL = 160  # samples kept free at the end of a window


@dataclass
class Speech:
    """float32 samples in [-1, 1] and the words in them, with each word's first sample or `UNKNOWN`."""

    samples: Samples
    words: list[str]
    starts: list[int]


@dataclass
class Window:
    """A window's samples; `speech` has its starts counted from the window's first sample; None: nobody speaks."""

    samples: Samples
    speech: Speech | None = None
    first: int = 0
    end: int = 0


@dataclass
class Corpus:
    """Sentences sorted by length, and single words by voice."""

    folder: Path
    forbidden: frozenset[str] = field(default_factory=held_out)

    def __post_init__(self) -> None:
        self._pcm = {name: np.memmap(self.folder / f"{name}.pcm", np.int16, "r") for name in ("sentences", "words")}
        rows = json.loads((self.folder / "sentences.json").read_text())
        self._sentences = sorted(rows, key=lambda row: row[1])
        self._lengths = [row[1] for row in self._sentences]
        voices: dict[str, dict[str, tuple[int, int]]] = {}
        for first, length, word, _, voice in json.loads((self.folder / "words.json").read_text()):
            voices.setdefault(voice, {})[word] = (first, length)
        self._voices = [words for words in voices.values() if len(words) == len(VOCABULARY)]

    def sentence(self, r: Random, longest: int) -> Speech:
        """Return a sentence as it was spoken, of at most `longest` samples if there is one."""
        count = max(1, bisect.bisect_right(self._lengths, longest))
        first, length, text, starts, _ = self._sentences[r.randrange(count)]
        return Speech(_float(self._pcm["sentences"][first : first + length]), text.split(), list(starts))

    def joined(self, r: Random, longest: int) -> Speech:
        """Return words in one voice, spoken apart and joined with pauses of 0 to 400 ms."""
        voice = r.choice(self._voices)
        wanted = unlike(self.forbidden, lambda: r.choices(VOCABULARY, k=r.randint(1, 9)))
        parts: list[Samples] = []
        words: list[str] = []
        starts: list[int] = []
        at, pause = 0, r.choice([0, 800, 3200, 6400])
        for word in wanted:
            first, length = voice[word]
            if words and at + length > longest:
                break
            gap = r.randint(0, pause)
            parts += [_float(self._pcm["words"][first : first + length]), np.zeros(gap, np.float32)]
            words.append(word)
            starts.append(at)
            at += length + gap
        return Speech(np.concatenate(parts[:-1]), words, starts)

    def speech(self, r: Random, longest: int) -> Speech:
        """Return one piece of speech, now and then two of them, now and then cut off."""
        spoken = self._piece(r, longest)
        room = longest - len(spoken.samples)
        if room > SAMPLE_RATE and r.random() < 0.2:
            pause = r.randint(1600, 9600)
            other = self._piece(r, room - pause)
            if len(other.samples) <= room - pause:
                spoken = _together(spoken, other, pause)
        # Rarely, because cut speech is hard to understand, and the model would learn to end at any unclear speech.
        return _cut_off(spoken, r) if r.random() < 0.02 else spoken

    def _piece(self, r: Random, longest: int) -> Speech:
        return self.joined(r, longest) if r.random() < 0.3 else self.sentence(r, longest)


def _float(pcm: NDArray[np.int16]) -> Samples:
    return (pcm.astype(np.float32) / 32768).astype(np.float32, copy=False)


def _together(one: Speech, two: Speech, pause: int) -> Speech:
    shift = len(one.samples) + pause
    samples = np.concatenate([one.samples, np.zeros(pause, np.float32), two.samples])
    starts = [*one.starts, *(s if s == UNKNOWN else s + shift for s in two.starts)]
    return Speech(samples, one.words + two.words, starts)


def _cut_off(speech: Speech, r: Random) -> Speech:
    """Cut at any moment, like a window that is still open. Needs the words' times to know what is left."""
    length = len(speech.samples)
    if UNKNOWN in speech.starts or length < SAMPLE_RATE:
        return speech
    cut = r.randint(SAMPLE_RATE // 2, length)
    ends = [*speech.starts[1:], length]
    count = sum(s + HEARD_SHARE * (e - s) <= cut for s, e in zip(speech.starts, ends, strict=True))
    if not count:
        return speech
    return Speech(speech.samples[:cut], speech.words[:count], speech.starts[:count])


def _faster(speech: Speech, factor: float) -> Speech:
    """Play at another speed: tempo and pitch change together."""
    x = speech.samples
    x = np.interp(np.arange(0, len(x) - 1, factor), np.arange(len(x)), x).astype(np.float32)
    return Speech(x, speech.words, [s if s == UNKNOWN else round(s / factor) for s in speech.starts])


def _room(x: Samples, r: Random, g: np.random.Generator) -> Samples:
    """Reverberate: noise that fades by 60 dB in 0.1 to 0.6 s."""
    length = r.randint(800, 4800)
    echo = g.standard_normal(length).astype(np.float32) * np.exp(
        -6.9 * np.arange(length) / (r.uniform(0.1, 0.6) * 16000)
    )
    echo *= r.uniform(0.1, 0.7) / np.sqrt((echo**2).sum())
    reverberation: Samples = signal.fftconvolve(x, echo)[: len(x)].astype(np.float32)
    return x + reverberation


def _line(x: Samples, r: Random) -> Samples:
    """Cut off lows and highs: telephone to radio band. One in three is also coded as 8-bit mu-law."""
    band = [r.uniform(80, 350), r.uniform(2800, 7500)]
    x = signal.sosfilt(signal.butter(2, band, "band", fs=SAMPLE_RATE, output="sos"), x).astype(np.float32)
    if r.random() < 0.33:
        peak = np.abs(x).max() + 1e-6
        companded = np.sign(x) * np.log1p(255 * np.abs(x) / peak) / np.log(256)
        x = np.sign(x) * np.expm1(np.abs(np.round(companded * 127) / 127) * np.log(256)) / 255 * peak
    return x.astype(np.float32)


def noise(n: int, r: Random, g: np.random.Generator) -> Samples:
    """White to brown noise, steady or swelling, now and then with a hum; of power 1."""
    x: NDArray[Any] = g.standard_normal(n).astype(np.float32)
    if r.random() < 0.65:
        x = signal.lfilter([1], [1, -r.uniform(0.5, 0.995)], x)
    if r.random() < 0.2:
        swell = np.interp(np.arange(n), np.linspace(0, n, 12), g.random(12))
        x = x * (0.1 + swell)
    x = x / (x.std() + 1e-9)
    if r.random() < 0.2:
        x = x + r.uniform(0.3, 3) * tones(n, r, g)
    even: Samples = (x / (x.std() + 1e-9)).astype(np.float32)
    return even


def tones(n: int, r: Random, g: np.random.Generator) -> Samples:
    """Return a hum, a beep, a sweep, a chord, or a tune of notes with overtones; of power 1."""
    t = np.arange(n) / SAMPLE_RATE
    x: NDArray[Any]
    kind = r.choice(["one", "several", "sweep", "tune", "tune", "beeps"])
    if kind in ("one", "several"):
        pitches = [
            r.choice([50, 60, 120, 400, 1000, r.uniform(40, 4000)])
            for _ in range(1 if kind == "one" else r.randint(2, 6))
        ]
        x = sum((r.random() * np.sin(2 * np.pi * f * t + r.uniform(0, 6)) for f in pitches), np.zeros(n))
    elif kind == "sweep":
        x = signal.chirp(t, r.uniform(50, 3000), max(t[-1], 0.1), r.uniform(50, 6000))
    elif kind == "beeps":
        x = np.sin(2 * np.pi * r.uniform(300, 3000) * t) * (
            np.sin(2 * np.pi * r.uniform(0.5, 8) * t) > r.uniform(-0.8, 0.8)
        )
    else:
        x = _tune(n, r, g)
    return (x / (np.std(x) + 1e-6)).astype(np.float32)


def _tune(n: int, r: Random, g: np.random.Generator) -> Samples:
    x = np.zeros(n, np.float32)
    length, decay = r.randint(1600, 12000), r.uniform(1, 12)
    t = np.arange(length) / SAMPLE_RATE
    vibrato = r.choice([0, 0, 0.01]) * np.sin(2 * np.pi * 5.5 * t)
    for first in range(0, n, length):
        for _ in range(r.randint(1, 4)):
            pitch = 55 * 2 ** (r.randint(0, 48) / 12)
            overtones = range(1, 1 + r.randint(1, 7))
            note = sum(np.sin(2 * np.pi * pitch * k * t * (1 + vibrato)) * r.random() / k for k in overtones)
            room = min(length, n - first)
            x[first : first + room] += (note * np.exp(-decay * t))[:room]
        if r.random() < 0.4:  # a drum
            hit = min(1600, n - first)
            x[first : first + hit] += g.standard_normal(hit) * np.exp(-np.arange(hit) / 300)
    return x


def spoken(corpus: Corpus, size: int, r: Random, g: np.random.Generator) -> Window:
    """Return a window of `size` samples in which somebody speaks."""
    speech = corpus.speech(r, round(size * 0.95))
    if r.random() < 0.6:
        speech = _faster(speech, r.uniform(0.87, 1.15))
    x = speech.samples / (np.abs(speech.samples).max() + 1e-6)
    if r.random() < 0.3:
        x = _room(x, r, g)
    if r.random() < 0.35:
        x = _line(x, r)
    x = (x / (np.abs(x).max() + 1e-6) * 10 ** r.uniform(-1.5, -0.02)).astype(np.float32)[: size - TAIL]
    slack = min(size - len(x) - TAIL, LATEST_START - 640)
    first = min(int(r.random() ** 1.5 * LATEST_START), slack) if r.random() < 0.85 else r.randint(0, slack)
    samples = np.zeros(size, np.float32)
    samples[first : first + len(x)] = x
    if r.random() < 0.8:
        end = size if r.random() < 0.5 else min(size, first + len(x) + r.randint(0, SAMPLE_RATE))
        level = np.sqrt((x**2).mean() + 1e-9) * 10 ** (-r.uniform(6, 45) / 20)
        samples[:end] += noise(end, r, g) * level
    starts = [s if s == UNKNOWN else s + first for s in speech.starts]
    return Window(samples, Speech(x, speech.words, starts), first, first + len(x))


def silent(size: int, r: Random, g: np.random.Generator) -> Window:
    """Return a window of `size` samples in which nobody speaks."""
    length = size if r.random() < 0.5 else r.randint(min(size, SAMPLE_RATE), size)
    kind = r.choices(["silence", "noise", "tones", "both"], [1, 4, 5, 1])[0]
    level = 10 ** r.uniform(-4, -0.3)
    samples = np.zeros(size, np.float32)
    if kind in ("noise", "both"):
        samples[:length] += noise(length, r, g) * level * 0.4
    if kind in ("tones", "both"):
        samples[:length] += tones(length, r, g) * level * 0.6
    return Window(np.clip(samples, -1, 1))
