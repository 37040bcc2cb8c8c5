"""Real speech to measure an engine with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.models import store
from transcriber.recording import read_16k

if TYPE_CHECKING:
    from numpy.typing import NDArray


def reference_speech(seconds: float) -> NDArray[np.float32]:
    """Return so much of it, as samples at 16 kHz: decoding noise costs less than decoding words."""
    return np.resize(read_16k(store.bundled("demo.flac")), round(seconds * SAMPLE_RATE))
