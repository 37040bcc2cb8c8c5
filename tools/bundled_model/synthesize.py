"""Synthesizes the training data: sentences, and single words to be joined at known times.

    python synthesize.py --out WORK [--sentences 36000] [--word-voices 100] [--seed 1]

Writes WORK/sentences and WORK/words, each as `.pcm` and `.json`. The `.pcm` has one row after the other, int16, 16 kHz.
A row of the `.json` is [first sample, samples, words, each word's first sample in the row or -1, voice].
"""

from __future__ import annotations

import argparse
import json
import os
from multiprocessing import Pool
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from sentences import VOCABULARY, held_out, sentence, unlike
from voices import FESTIVAL, FLITE, SAMPLE_RATE, Utterance, Voice, heard_voice

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 9.4  # seconds; one sentence in a hundred is longer, and each costs as much as the longest
HELD_OUT = held_out()


def spoken_sentence(seed: int) -> tuple[Utterance, list[str], Voice]:
    r = Random(seed)
    words, voice = unlike(HELD_OUT, lambda: sentence(r)), heard_voice(r)
    return voice.say(words), words, voice


def spoken_word(task: tuple[Voice, str]) -> tuple[Utterance, list[str], Voice]:
    voice, word = task
    return voice.say([word]), [word], voice


def word_voices(count: int, seed: int) -> list[Voice]:
    """Each recorded speaker at three rates, and espeak-ng's for the rest."""
    r = Random(seed)
    recorded = [*("flite-" + name for name in FLITE), *("festival-" + name for name in FESTIVAL)]
    voices = [Voice(name=name, rate=rate) for name in recorded for rate in (145, 170, 200)]
    while len(voices) < count:
        voice = heard_voice(r)
        if not voice.name.startswith(("flite-", "festival-")):
            voices.append(voice)
    return voices[:count]


def write(path: Path, spoken: Iterator[tuple[Utterance, list[str], Voice]]) -> None:
    rows: list[tuple[int, int, str, list[int], str]] = []
    first = 0
    with path.with_suffix(".pcm").open("wb") as file:
        for utterance, words, voice in spoken:
            length = len(utterance.samples)
            if length > LONGEST * SAMPLE_RATE:
                continue
            file.write(utterance.samples.tobytes())
            starts = [0] if len(words) == 1 else utterance.starts
            rows.append((first, length, " ".join(words), starts, f"{voice.name} {voice.rate} {voice.pitch}"))
            first += length
    path.with_suffix(".json").write_text(json.dumps(rows))  # last, so its presence proves that the data is complete
    print(f"{path.name}: {len(rows)} utterances, {first / SAMPLE_RATE / 3600:.1f} h")


def main() -> None:
    parser = argparse.ArgumentParser(description="Synthesize what is trained on.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=36000)
    parser.add_argument("--word-voices", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    seeds = [options.seed * 1_000_003 + i for i in range(options.sentences)]
    words = [(voice, word) for voice in word_voices(options.word_voices, options.seed) for word in VOCABULARY]
    with Pool(os.cpu_count()) as pool:
        write(options.out / "words", pool.imap(spoken_word, words, chunksize=50))
        write(options.out / "sentences", pool.imap(spoken_sentence, seeds, chunksize=50))


if __name__ == "__main__":
    main()
