"""The bundled model keeps the promises of its card, measured by the recipe's own evaluation."""

from __future__ import annotations

import json
import os
import sys
import zlib

import pytest
from places import DATA, ROOT

MODELS = ROOT / "models"
sys.path.insert(0, str(ROOT / "tools" / "bundled_model"))

import evaluate  # noqa: E402
import sentences  # noqa: E402
from evaluate import MODEL, Recognizer  # noqa: E402

THREADS = os.cpu_count() or 1


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(MODEL, THREADS)


def test_model_file_is_small() -> None:
    """At most 25 MB, and at most 8 MB in a wheel, which is compressed."""
    assert list(MODELS.rglob("*.bin")) == [MODEL]
    assert MODEL.stat().st_size <= 25e6
    assert len(zlib.compress(MODEL.read_bytes())) <= 8e6


@pytest.mark.slow
def test_word_errors_stay_within_the_promise_by_voice(recognizer: Recognizer) -> None:
    """At most 3 % in voices heard in training, and 12 % in voices and accents never heard."""
    rates = evaluate.by_voice(recognizer)
    assert rates["voices heard in training"].wer <= 0.03
    assert rates["voices never heard"].wer <= 0.12


@pytest.mark.slow
def test_fitting_the_context_costs_half_a_point_at_most(recognizer: Recognizer) -> None:
    """The daemon cuts the encoder's context to each window. It is compared with the full context."""
    rates = evaluate.by_fit(recognizer)
    assert rates["context fitted"].wer <= rates["context full"].wer + 0.005


@pytest.mark.slow
def test_word_errors_stay_within_the_promise_in_noise(recognizer: Recognizer) -> None:
    """At most 6 % when the noise is 15 dB below the speech."""
    (rate,) = evaluate.by_noise(recognizer, 15).values()
    assert rate.wer <= 0.06


@pytest.mark.slow
def test_every_encoder_context_gives_the_same_words() -> None:
    """Full, 512 and 256 positions lie within a point of each other, with and without flash attention."""
    rates = [rate.wer for rate in evaluate.by_context(MODEL, THREADS, most=40).values()]
    assert len(rates) == 6
    assert max(rates) - min(rates) <= 0.01


@pytest.mark.slow
def test_every_mode_gives_the_same_words(recognizer: Recognizer) -> None:
    """Without timestamps, and after a prompt, there are at most 4 % word errors: a point more than plain."""
    rates = evaluate.by_mode(recognizer, most=120)
    assert len(rates) == 2
    for name, rate in rates.items():
        assert rate.wer <= 0.04, name


@pytest.mark.parametrize(("longest", "most"), [(4, 1), pytest.param(10, 2, marks=pytest.mark.slow)])
def test_no_text_where_nobody_speaks(recognizer: Recognizer, longest: int, most: int) -> None:
    """The model alone makes text of at most 2 in 100 signals without speech, and of 1 in the 40 up to 4 s."""
    assert len(evaluate.without_speech(recognizer, longest)) <= most


def test_word_times_are_close_to_the_truth() -> None:
    """Nine words in ten are found, and begin within 0.3 s of the truth."""
    errors, words = evaluate.word_times(MODEL)
    assert sum(abs(e) <= evaluate.LATEST for e in errors) >= 0.9 * words


def test_training_leaves_out_every_tested_sentence() -> None:
    """Synthesis for training leaves out every sentence of every recording in the repository."""
    forbidden = sentences.held_out()
    drawn = iter([min(forbidden).split(), ["alpha"]])
    assert sentences.unlike(forbidden, lambda: next(drawn)) == ["alpha"]
    for path in (DATA).glob("*.json"):
        for row in json.loads(path.read_text()):
            assert len(row["words"].split()) < 3 or row["words"] in forbidden
