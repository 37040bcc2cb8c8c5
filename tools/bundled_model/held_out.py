"""Makes the repository's test recordings: voices that are never in training, and words with known times.

    python held_out.py [--seed 7] [--without WORK/sentences.json]

Writes tests/data/unheard: 96 sentences, half by a speaker of festival's. The other half are accents and throats of
espeak-ng's that training leaves out. Writes tests/data/timed: 24 sentences of words spoken apart and joined, so that
each word's start is known. Synthesis for training leaves out every sentence that is found there.

`--without` names sentences that were trained on already. Needs Debian's festival and festvox-kdlpc16k besides espeak-ng
and flite.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

import numpy as np
import soundfile
from sentences import ROOT, VOCABULARY, held_out, sentence, unlike
from voices import SAMPLE_RATE, heard_voice, unheard_voice

PAUSE = 11200  # samples between utterances, 0.7 s: longer than the pause that ends speech


class Recording:
    """Consecutive utterances, with their words and times."""

    def __init__(self, r: Random) -> None:
        self._r = r
        self._parts = [np.zeros(PAUSE, np.int16)]
        self._length = PAUSE
        self.rows: list[dict[str, object]] = []

    def add(self, samples: np.ndarray, words: list[str], voice: str, starts: list[int] | None = None) -> None:
        scaled = samples * (10 ** self._r.uniform(-1, -0.1) * 32768 / np.abs(samples).max())
        first, end = self._length, self._length + len(samples)
        row: dict[str, object] = {
            "start": _seconds(first),
            "end": _seconds(end),
            "words": " ".join(words),
            "voice": voice,
        }
        if starts:
            row["starts"] = [_seconds(first + s) for s in starts]
        self.rows.append(row)
        self._parts += [scaled.astype(np.int16), np.zeros(PAUSE, np.int16)]
        self._length = end + PAUSE

    def write(self, path: Path) -> None:
        soundfile.write(path.with_suffix(".flac"), np.concatenate(self._parts), SAMPLE_RATE, subtype="PCM_16")
        path.with_suffix(".json").write_text(json.dumps(self.rows, indent=0) + "\n")


def _seconds(samples: int) -> float:
    return samples / SAMPLE_RATE


def unheard(r: Random, forbidden: frozenset[str]) -> Recording:
    recording = Recording(r)
    for _ in range(96):
        words, voice = unlike(forbidden, lambda: sentence(r)), unheard_voice(r)
        recording.add(voice.say(words).samples, words, voice.name)
    return recording


def timed(r: Random) -> Recording:
    """Words of one voice, heard or not, with pauses of 20 to 300 ms."""
    recording = Recording(r)
    for k in range(24):
        voice = unheard_voice(r) if k % 4 == 0 else heard_voice(r)
        words = r.sample(VOCABULARY, r.randint(4, 7))
        parts: list[np.ndarray] = []
        starts: list[int] = []
        at = 0
        for word in words:
            spoken, gap = voice.say([word]).samples, r.randint(320, 4800)
            starts.append(at)
            parts += [spoken, np.zeros(gap, np.int16)]
            at += len(spoken) + gap
        recording.add(np.concatenate(parts[:-1]), words, voice.name, starts)
    return recording


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the test recordings.")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--without", type=Path)
    options = parser.parse_args()
    trained = {row[2] for row in json.loads(options.without.read_text())} if options.without else set()
    forbidden = held_out() | trained
    unheard(Random(options.seed), forbidden).write(ROOT / "tests" / "data" / "unheard")
    timed(Random(options.seed + 1)).write(ROOT / "tests" / "data" / "timed")


if __name__ == "__main__":
    main()
