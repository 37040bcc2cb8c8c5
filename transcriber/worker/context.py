"""How many encoder positions a window is given. Pure.

Whisper's encoder was trained on 30 s, 1500 positions of 20 ms. Its cost grows with the positions, so a context that
covers little more than the words saves most of it. But an official model needs silence after the words: without it,
the model does not end and repeats them. How much it needs was measured; docs/real-models.md has the tables.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transcriber.models.ggml import ModelHeader

POSITION = 320  # samples per encoder position: 20 ms
POSITIONS = 1500  # 30 s, what Whisper was trained on

# Flash attention pads keys to a multiple of 256 and attends to the padding. At other contexts that more than doubles
# the bundled model's word error rate. So either flash attention is off, or the context is such a multiple.
FLASH_STEP = 256
_SPARE = 64  # positions, 1.28 s of silence at least: with none of them tiny.en runs away; with 128 it is no better
_SPARE_OF_ANY = 200  # positions, 4 s, for an engine that takes any context: with 250 it is no better
# Positions, 1 s: oneDNN, inside CTranslate2, keeps compiled code for each length that it has seen.
# With a length for each window a daemon would grow by 300 MB in 600 windows.
_STEP_OF_ANY = 50
_MORE = 250  # positions: 5 s more of silence for a second pass
_SLACK = 8  # positions, 0.16 s: the bundled model's word error rate is the same with 0 to 64
_FLOOR = 128  # positions; shorter windows are rare, and cost little at this size
_LARGE_V3_MELS = 128  # large-v3 and turbo, for which reduced contexts are reported to fail
_BUNDLED = (128, 4, 3)  # width, encoder and decoder layers; no official model is so narrow


class Cutting(NamedTuple):
    """The longest window, and the pause that closes a window of a word or two. In seconds."""

    window: float
    pause: float


# For models trained on 30 s. They need the words around a word, so cuts and pauses lose words, and a longer window
# costs less per second. Windows over 15 s gained nothing, and their text comes later.
_LONG = Cutting(15.0, 1.0)
_SHORT = Cutting(5.0, 0.48)


class Fit(StrEnum):
    """How the context follows the window's length."""

    TIGHT = "tight"  # the window and 8 positions: for models that were trained on cut contexts
    ROOMY = "roomy"  # a multiple of 256 with at least 64 positions to spare: for official models
    FULL = "full"  # always all 1500


def fit_for(header: ModelHeader) -> Fit:
    """The fit that suits a model. Only the bundled model is known to be trained on cut contexts."""
    if header.n_mels >= _LARGE_V3_MELS:
        return Fit.FULL
    shape = (header.n_audio_state, header.n_audio_layer, header.n_text_layer)
    return Fit.TIGHT if shape == _BUNDLED else Fit.ROOMY


def cutting_for(fit: Fit, max_latency: float) -> Cutting:
    """How audio is cut for a model by default. Windows are no longer than `max_latency` seconds, and 5 s at least."""
    if fit is Fit.TIGHT:
        return _SHORT
    return Cutting(min(_LONG.window, max(_SHORT.window, max_latency)), _LONG.pause)


def fitted(samples: int, fit: Fit, *, flash: bool) -> int:
    """Encoder positions for a window of so many samples. With flash attention: a multiple of 256, or all 1500."""
    own = math.ceil(max(samples, 1) / POSITION)
    match fit:
        case Fit.FULL:
            return POSITIONS
        case Fit.ROOMY:
            return min(POSITIONS, _stepped(own + _SPARE))
        case Fit.TIGHT:
            return min(POSITIONS, _stepped(own) if flash else max(_FLOOR, own + _SLACK))


def wider(positions: int) -> int:
    """The context for a second pass over a window whose text is in doubt: 5 s more of silence."""
    return min(POSITIONS, _stepped(positions + FLASH_STEP))


def fitted_exactly(samples: int, fit: Fit, attempt: int = 0) -> int:
    """The same for an engine that takes any context: encoder positions, a multiple of 50; later passes get 5 s more."""
    own = math.ceil(max(samples, 1) / POSITION)
    match fit:
        case Fit.FULL:
            return POSITIONS
        case Fit.ROOMY:
            own += _SPARE_OF_ANY
        case Fit.TIGHT:
            own = max(_FLOOR, own + _SLACK)
    own += _MORE if attempt else 0
    return min(POSITIONS, _STEP_OF_ANY * math.ceil(own / _STEP_OF_ANY))


def _stepped(positions: int) -> int:
    return FLASH_STEP * math.ceil(positions / FLASH_STEP)
