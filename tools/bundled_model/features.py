"""Log-mel features as Whisper computes them, varied by throat and microphone and with parts hidden."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - as PyTorch calls it
from whisper.audio import mel_filters

if TYPE_CHECKING:
    from random import Random

    from torch import Tensor


@dataclass(frozen=True)
class Throat:
    """The factors between which a voice's frequencies may move, and the extra share by which each formant may."""

    lengths: tuple[tuple[float, float], ...]
    formants: float


HUMAN = Throat(((0.85, 1.18),), 0.13)
GARBLED = Throat(((0.5, 0.75), (1.35, 1.8)), 0.4)


class Mel:
    """Log-mel features as Whisper computes them, for many throats and microphones."""

    def __init__(self) -> None:
        self._plain = mel_filters("cpu", 80)
        self._hann = torch.hann_window(400)

    def __call__(self, samples: Tensor, garbled: list[bool], r: Random) -> Tensor:
        """(batch, samples) at 16 kHz to (batch, 80, frames); `garbled`: which of them to make unintelligible."""
        frames = samples.shape[1] // 160
        spectrum = torch.stft(F.pad(samples, (0, 400)), 400, 160, window=self._hann, return_complex=True)[..., :frames]
        power = torch.view_as_real(spectrum).square().sum(-1)
        throats = [GARBLED if g else HUMAN if r.random() < 0.6 else None for g in garbled]
        filters = torch.stack([self._heard(throat, r) if throat else self._plain for throat in throats])
        colours = torch.stack([_colour(r) if r.random() < 0.5 else torch.zeros(80) for _ in samples])
        mel = (filters @ power).clamp(min=1e-10).log10() + colours[..., None]
        return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0) + 4) / 4

    def _heard(self, throat: Throat, r: Random) -> Tensor:
        """Filters for another vocal tract length (Jaitly and Hinton 2013), with each formant moved."""
        hertz = torch.linspace(0, 8000, 201)
        moved = hertz * r.uniform(*r.choice(throat.lengths))
        for formant in (500, 1500, 2700):
            nearness = torch.exp(-(((hertz.clamp(min=1) / formant).log2() / 0.6) ** 2))
            moved = moved * (1 + r.uniform(-throat.formants, throat.formants) * nearness)
        at = (moved / 40).clamp(max=200.0)
        low = at.floor().long().clamp(max=199)
        share = at - low
        return self._plain[:, low] * (1 - share) + self._plain[:, low + 1] * share


def _colour(r: Random) -> Tensor:
    """The gain of a microphone or voice in each band, in powers of ten: wavy slopes of up to 20 dB."""
    bands = torch.linspace(0, math.pi, 80)
    return sum(r.uniform(-0.5, 0.5) * torch.cos(k * bands + r.uniform(0, math.pi)) / k for k in (1, 2, 3))


def hide(feature: Tensor, r: Random) -> None:
    """Hide bands and moments (SpecAugment, Park et al. 2019), so that the model does not end at inaudible speech."""
    blank = feature.mean()
    for _ in range(r.choice([0, 0, 1, 2])):
        band = r.randint(0, 70)
        feature[band : band + r.randint(1, 10)] = blank
    for _ in range(r.choice([0, 0, 0, 1, 2])):
        moment = r.randint(0, feature.shape[1])
        feature[:, moment : moment + r.randint(4, 20)] = blank
