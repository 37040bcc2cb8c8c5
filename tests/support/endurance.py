"""`python endurance.py MODEL WINDOWS LONGEST`: decodes that many windows, and prints its own memory on the way.

The windows are of speech and have every length up to LONGEST seconds. Every tenth is a second pass, every third
searches with beams.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import psutil

from transcriber.models import store
from transcriber.recording import read_16k
from transcriber.worker import memory
from transcriber.worker.engine import ATTEMPTS, WhisperOptions
from transcriber.worker.engines.loading import load_engine

EVERY = 50  # windows between two figures


def main(model: str, windows: int, longest: float) -> None:
    engine = load_engine(WhisperOptions(path=Path(model), threads=1))
    speech = read_16k(store.bundled("talk.flac" if "dispatch" not in model else "demo.flac"))
    rand = random.Random(1)
    for n in range(1, windows + 1):
        length = round(rand.uniform(0.5, longest) * 16_000)
        start = rand.randrange(len(speech))
        samples = np.take(speech, np.arange(start, start + length), mode="wrap")
        engine.transcribe(samples, "en", attempt=0 if n % 10 else 1 + n // 10 % (ATTEMPTS - 1), quick=bool(n % 3))
        if n % EVERY == 0:
            memory.trim_heap()
            print(n, psutil.Process().memory_full_info().uss, flush=True)  # pages of libraries come and go


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
