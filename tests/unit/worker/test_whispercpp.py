"""whisper.cpp through its bindings. The contract of every engine is in test_engine_contract.py."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from harness import Speech

from transcriber.domain.errors import EngineError, Stopped
from transcriber.domain.timeline import UNGUIDED, Guidance
from transcriber.models import store
from transcriber.worker import tokens
from transcriber.worker.cancellation import Stop
from transcriber.worker.context import Fit
from transcriber.worker.engine import WhisperOptions
from transcriber.worker.engines import whispercpp
from transcriber.worker.engines.whispercpp import WhisperCppEngine


def load(**options: object) -> WhisperCppEngine:
    return WhisperCppEngine(WhisperOptions(path=store.bundled_model_path(), threads=1, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine() -> WhisperCppEngine:
    return load()


def utterance(speech: Speech, index: int) -> np.ndarray:
    return speech.cut(index, index + 1).samples


def text(engine: WhisperCppEngine, samples: np.ndarray) -> str:
    return " ".join(s.text for s in engine.transcribe(samples, None).segments)


@pytest.mark.parametrize(
    ("audio_ctx", "use_gpu", "flash"),
    [
        (None, False, False),
        (None, True, True),
        (Fit.FULL, False, True),
        (Fit.ROOMY, False, True),
        (Fit.TIGHT, False, False),
        (512, False, True),
        (300, True, False),
    ],
)
def test_flash_attention_is_used_only_at_contexts_it_gets_right(
    audio_ctx: int | Fit | None, use_gpu: bool, flash: bool
) -> None:
    """It pads keys to a multiple of 256 and attends to the padding."""
    assert load(audio_ctx=audio_ctx, use_gpu=use_gpu).flash == flash


def test_a_failed_pass_is_an_error_that_says_so(engine: WhisperCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A non-zero status of whisper_full is not taken for an empty result."""
    monkeypatch.setattr(whispercpp.whisper, "whisper_full", lambda *_: -6)
    with pytest.raises(EngineError, match="whisper_full returned -6"):
        engine.transcribe(np.zeros(16_000, np.float32), None)


class _AskedWithin(Stop):
    """Another thread asks as soon as a pass has begun. The pass looks once and does not see it yet."""

    def __init__(self) -> None:
        super().__init__()
        self.other = threading.Thread(target=self.request)

    def requested(self) -> bool:
        asked = super().requested()
        if self.other.ident is None:
            self.other.start()
        return asked


def _asked_before() -> Stop:
    stop = Stop()
    stop.request()
    return stop


@pytest.mark.parametrize("make", [_asked_before, _AskedWithin])
def test_stopped_pass_does_not_change_the_next_one(
    engine: WhisperCppEngine, heldout: Speech, make: Callable[[], Stop]
) -> None:
    """The stop comes before the pass or during it. The next pass gives the usual result."""
    samples = utterance(heldout, 2)
    first = engine.transcribe(samples, None)
    with pytest.raises(Stopped):
        engine.transcribe(samples, None, make(), attempt=2)
    assert engine.transcribe(samples, None, Stop()) == first
    assert engine.transcribe(samples, None) == first


def test_stop_check_takes_the_gil_only_when_asked_to_stop(engine: WhisperCppEngine, heldout: Speech) -> None:
    """A thread waits for the GIL while the event loop is busy. A pass that nobody stops does not ask for it."""

    class Counting(Stop):
        answers: ClassVar[list[bool]] = []

        def requested(self) -> bool:
            self.answers.append(super().requested())
            return self.answers[-1]

    decoded = engine.transcribe(utterance(heldout, 2), None, Counting())
    assert decoded.segments
    assert Counting.answers == [False]  # once, when the pass begins; there are more tokens than that


def test_work_is_the_context_and_the_window() -> None:
    """Work is in seconds of audio. The encoder also goes through what a short window does not fill."""
    assert load().work(5 * 16_000) == pytest.approx(258 * 0.02 + 5)
    assert load().work(1 * 16_000) == pytest.approx(128 * 0.02 + 1)
    assert load().work(12 * 16_000) == pytest.approx(608 * 0.02 + 12)
    assert load(audio_ctx=Fit.FULL).work(5 * 16_000) == pytest.approx(30 + 5)
    assert load(audio_ctx=512).work(16_000) == pytest.approx(512 * 0.02 + 1)


def test_the_work_of_a_later_attempt_is_never_guessed_too_low() -> None:
    """The encoder's share differs from model to model. All of the cost is taken to grow with the context."""
    samples, first = 5 * 16_000, 258 * 0.02 + 5
    assert load().work(samples, attempt=1) == pytest.approx(first * 768 / 258)
    assert load().work(samples, attempt=2) == pytest.approx(first * 768 / 258)
    full = load(audio_ctx=Fit.FULL)
    assert full.work(samples, attempt=2) == full.work(samples)


def test_pass_with_more_tokens_than_time_is_ended(heldout: Speech) -> None:
    """The bound is eight tokens a second plus eight. Five seconds of speech given as half a second have too many."""
    samples = heldout.cut(1, 3).samples[: 8 * 16_000]
    whole = load().transcribe(samples, None)
    assert not whole.endless
    parameters = load()._parameters(8000, None, 0)
    assert parameters.max_tokens == 12
    cut = _Hasty(WhisperOptions(path=store.bundled_model_path(), threads=1)).transcribe(samples, None)
    assert cut.endless
    assert len(cut.segments[0].words) < sum(len(segment.words) for segment in whole.segments)


class _Hasty(WhisperCppEngine):
    """Gives every window the tokens of one that lasts a quarter of a second."""

    def _parameters(self, length: int, language: str | None, attempt: int, guidance: Guidance = UNGUIDED) -> Any:
        parameters = super()._parameters(length, language, attempt, guidance)
        parameters.max_tokens = super()._parameters(4000, language, attempt).max_tokens
        return parameters


def test_a_characters_bytes_may_span_tokens() -> None:
    """A word whose UTF-8 is split over tokens is joined before it is decoded."""
    word = tokens._Word(b"", 0, 0, [])
    for part in (b" caf", b"\xc3", b"\xa9"):
        word.add(part, 10, -0.1)
    assert word.done(16_000).text == "café"


def test_the_interpreter_ends_cleanly_after_decoding() -> None:
    """The bindings release the log callback in time. Later it would abort the process."""
    script = (
        "import numpy as np; from transcriber.models import store; from transcriber.worker.engines import whispercpp\n"
        "from transcriber.worker.engine import WhisperOptions\n"
        "options = WhisperOptions(path=store.bundled_model_path(), threads=1)\n"
        "whispercpp.WhisperCppEngine(options).transcribe(np.zeros(16000, np.float32), None)\n"
        "del whispercpp._log\n"  # as happens in the course of finalization
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
