"""Makes the demo's open-vocabulary recording: models/talk.flac, and its words and times in models/talk.json.

    apt-get install flite
    python tools/bundled_model/talk.py [--out models/talk]

Four of flite's voices take turns. The sentences were written for this purpose. Nothing is random, so the same flite
gives the same samples.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATE = 16000  # Hz, of these four voices; flite's `kal` has 8000
# The level of each voice's loudest sample in dB below full scale: people do not sit equally near to a microphone.
LEVELS = {"slt": -2, "rms": -8, "awb": -5, "kal16": -11}
STRETCH = {
    "slt": 1.0,
    "rms": 0.95,
    "awb": 1.05,
    "kal16": 1.1,
}  # how slowly each speaks; without it awb and kal16 mumble
PAUSES = (0.6, 0.9, 0.7, 1.2, 0.8, 1.0, 1.1)  # seconds between sentences, in turn
EDGE = 0.5  # seconds before the first sentence, and after the last up to the next tenth of a second
MARGIN = 160  # samples, 10 ms, kept around what flite says
SENTENCES = (  # voice, and the text as a listener would write it down
    ("slt", "Good morning, and welcome to the news on this cold and windy day."),
    ("rms", "The city council has agreed to build a new library near the old market."),
    ("awb", "Work should start next April, and it will take about two years."),
    ("slt", "Professor Helen Parker, who leads the project, said that every child deserves a quiet place to read."),
    ("kal16", "More than 300 people came to the meeting last night."),
    ("rms", "Many farmers in the south are hoping for rain after the driest summer in 20 years."),
    ("slt", "Since January, the price of coffee has gone up by 5 percent."),
    ("awb", "Now it is time for our recipe of the week."),
    ("rms", "To make a simple soup, you need two onions, four potatoes, and a little butter."),
    ("slt", "Cut the vegetables into small pieces, and cook them slowly for 10 minutes."),
    ("kal16", "Add some water and a pinch of salt."),
    ("awb", "When everything is soft, take the pot off the stove, and serve it with fresh bread."),
    ("rms", "My name is David Wilson, and I am calling about the apartment on Green Street."),
    ("slt", "You can reach me at my office every morning, and my sister Anna will take a message."),
    ("kal16", "Thank you very much, and enjoy the weekend."),
)


def spoken(voice: str, text: str) -> NDArray[np.float64]:
    """The speech of flite, without the silence around it, at the voice's level."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        stretch = f"duration_stretch={STRETCH[voice]}"
        subprocess.run(["flite", "-voice", voice, "--setf", stretch, "-t", text, "-o", file.name], check=True)
        samples, rate = soundfile.read(file.name)
    if rate != RATE:
        raise ValueError(f"{voice} speaks at {rate} Hz, not {RATE}")
    peak: float = np.abs(samples).max()
    loud = np.nonzero(np.abs(samples) > peak * 0.01)[0]
    said: NDArray[np.float64] = samples[max(0, loud[0] - MARGIN) : loud[-1] + MARGIN]
    return said / peak * 10 ** (LEVELS[voice] / 20)


def recording() -> tuple[NDArray[np.int16], list[dict[str, object]]]:
    """The samples, and a row for each sentence: start and end in seconds, words, voice."""
    parts: list[NDArray[np.float64]] = []
    rows: list[dict[str, object]] = []
    length, pause = 0, EDGE
    for (voice, text), following in zip(SENTENCES, itertools.cycle(PAUSES), strict=False):
        parts += [np.zeros(round(pause * RATE)), spoken(voice, text)]
        start = length + len(parts[-2])
        length, pause = start + len(parts[-1]), following
        rows.append({"start": start / RATE, "end": length / RATE, "words": text, "voice": voice})
    whole = -(-(length + round(EDGE * RATE)) // (RATE // 10)) * (RATE // 10)
    parts.append(np.zeros(whole - length))
    return np.rint(np.concatenate(parts) * 32767).astype(np.int16), rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the demo's open-vocabulary recording.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "talk", help="without an ending")
    out: Path = parser.parse_args().out
    samples, rows = recording()
    soundfile.write(out.with_suffix(".flac"), samples, RATE, subtype="PCM_16")
    out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{out}.flac: {len(samples) / RATE:.1f} s, {sum(len(text.split()) for _, text in SENTENCES)} words")


if __name__ == "__main__":
    main()
