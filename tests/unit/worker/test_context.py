"""The encoder's context follows the window, in the way that each kind of model needs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from transcriber.models import store
from transcriber.models.ggml import check_model_file
from transcriber.worker.context import Fit, cutting_for, fit_for, fitted, fitted_exactly, wider

SECONDS = (1, 3, 5, 10, 20, 30)


@pytest.mark.parametrize(
    ("fit", "flash", "positions"),
    [
        (Fit.TIGHT, False, [128, 158, 258, 508, 1008, 1500]),
        (Fit.TIGHT, True, [256, 256, 256, 512, 1024, 1500]),
        (Fit.ROOMY, True, [256, 256, 512, 768, 1280, 1500]),
        (Fit.FULL, True, [1500] * 6),
    ],
)
def test_contexts_of_each_fit(fit: Fit, flash: bool, positions: list[int]) -> None:
    """None is over Whisper's 1500."""
    assert [fitted(s * 16_000, fit, flash=flash) for s in SECONDS] == positions


def test_contexts_hold_the_window_and_suit_flash_attention() -> None:
    """Flash attention pads its keys to a multiple of 256 and attends to the padding."""
    for samples, fit, flash in itertools.product(range(0, 30 * 16_000, 1000), Fit, (True, False)):
        context = fitted(samples, fit, flash=flash)
        assert context * 320 >= samples
        assert not flash or context % 256 == 0 or context == 1500


def test_official_models_hear_silence_after_the_words() -> None:
    """They get at least 1.28 s of it, unless the window nearly fills the 30 s."""
    for samples in range(0, 28 * 16_000, 1000):
        assert fitted(samples, Fit.ROOMY, flash=True) - samples / 320 >= 64


def test_a_second_pass_hears_more() -> None:
    """It gets 5 s more, and at most all."""
    assert [wider(positions) for positions in (128, 256, 300, 768, 1280, 1500)] == [512, 512, 768, 1024, 1500, 1500]


def test_any_context_is_one_of_thirty_lengths() -> None:
    """With 4 s of silence at least; oneDNN keeps memory for each length that it has seen."""
    contexts = {fitted_exactly(samples, Fit.ROOMY) for samples in range(1, 30 * 16_000, 1000)}
    assert contexts <= set(range(50, 1501, 50))
    assert all(fitted_exactly(n, Fit.ROOMY) - n / 320 >= 200 for n in range(1, 26 * 16_000, 1000))
    assert fitted_exactly(5 * 16_000, Fit.ROOMY, 1) == fitted_exactly(5 * 16_000, Fit.ROOMY) + 250
    assert fitted_exactly(16_000, Fit.FULL) == 1500
    assert fitted_exactly(5 * 16_000, Fit.TIGHT) == 300


def test_only_the_bundled_model_is_fitted_tightly() -> None:
    """An official shape gets room, and large-v3 the whole context."""
    bundled = check_model_file(store.bundled_model_path())
    assert fit_for(bundled) is Fit.TIGHT
    tiny = replace(bundled, n_audio_state=384, n_audio_head=6, n_text_state=384, n_text_head=6, n_text_layer=4)
    assert fit_for(tiny) is Fit.ROOMY
    assert fit_for(replace(tiny, n_mels=128)) is Fit.FULL


def test_windows_of_30_s_models_grow_with_the_promise() -> None:
    """A window may be as long as its text may take, up to 15 s. The bundled model keeps its five."""
    assert cutting_for(Fit.TIGHT, 20.0) == (5.0, 0.48)
    assert [cutting_for(Fit.ROOMY, latency).window for latency in (2.0, 10.0, 20.0)] == [5.0, 10.0, 15.0]
    assert cutting_for(Fit.FULL, 20.0) == cutting_for(Fit.ROOMY, 20.0)
