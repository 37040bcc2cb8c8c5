"""whisper.cpp through its bindings, on the bundled model: text, words, bounds, and nothing that carries over."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import soxr
from harness import Speech

from transcriber.domain.errors import EngineError, Stopped
from transcriber.models import store
from transcriber.worker import engine as engine_module
from transcriber.worker import tokens
from transcriber.worker.cancellation import Stop
from transcriber.worker.context import Fit
from transcriber.worker.engine import WhisperOptions
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


def test_speech_becomes_its_words(engine: WhisperCppEngine, demo_speech: Speech) -> None:
    """A sentence comes back as it was said, under the model's name and language."""
    sentence = demo_speech.cut(3, 4)
    decoded = engine.transcribe(soxr.resample(sentence.samples, sentence.rate, 16_000, "HQ"), None)
    assert " ".join(s.text for s in decoded.segments) == sentence.words
    assert decoded.language == "en"
    assert engine.model == "ggml-dispatch-mini"


@pytest.mark.parametrize("language", ["auto", "de", "xx", ""])
def test_an_english_model_stays_english(engine: WhisperCppEngine, heldout: Speech, language: str) -> None:
    """A hint that the model cannot follow changes neither the text nor the language that is reported."""
    assert engine.transcribe(utterance(heldout, 2), language) == engine.transcribe(utterance(heldout, 2), None)


def test_words_come_from_token_data_with_bounds_and_confidences(engine: WhisperCppEngine, heldout: Speech) -> None:
    """Words joined are the text; they lie in order inside the window; confidences are probabilities."""
    samples = utterance(heldout, 1)
    (segment,) = engine.transcribe(samples, None).segments
    assert " ".join(word.text for word in segment.words) == segment.text
    assert len(segment.words) == len(heldout.rows[1]["words"].split())
    position = 0
    for word in segment.words:
        assert 0 <= word.start <= word.end <= len(samples)
        assert word.start >= position
        assert 0 < word.confidence <= 1
        position = word.start
    assert 0 <= segment.start < segment.end <= len(samples)
    assert segment.confidence == pytest.approx(float(np.mean([w.confidence for w in segment.words])), abs=0.2)


def test_every_call_sets_every_parameter(engine: WhisperCppEngine, heldout: Speech) -> None:
    """The same window gives the same result whatever was decoded, hinted or aborted before it."""
    first = engine.transcribe(utterance(heldout, 2), None)
    engine.transcribe(utterance(heldout, 5), "de")
    engine.transcribe(np.zeros(16_000, np.float32), "auto")
    assert engine.transcribe(utterance(heldout, 2), None) == first
    assert load().transcribe(utterance(heldout, 2), None) == first


def test_a_prompt_and_a_full_context_are_accepted(heldout: Speech) -> None:
    """Vocabulary in the prompt and the full encoder are settings, not code."""
    words = set(heldout.rows[1]["words"].split())
    for options in ({"prompt": "train, platform"}, {"audio_ctx": Fit.FULL}, {"audio_ctx": 768}):
        heard = set(text(load(**options), utterance(heldout, 1)).split())
        assert len(words & heard) >= len(words) - 1, options


@pytest.mark.parametrize("length", [0, 1, 160, 1600, 8000])
def test_a_window_shorter_than_whisper_likes_is_padded(engine: WhisperCppEngine, length: int) -> None:
    """Under 0.1 s whisper.cpp decodes nothing and under 1 s it warns: padding keeps both away, bounds stay inside."""
    for segment in engine.transcribe(np.zeros(length, np.float32), None).segments:
        assert segment.end <= length


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
def test_flash_attention_is_used_only_at_contexts_that_it_gets_right(
    audio_ctx: int | Fit | None, use_gpu: bool, flash: bool
) -> None:
    """It pads keys to a multiple of 256 and attends to the padding."""
    assert load(audio_ctx=audio_ctx, use_gpu=use_gpu).flash == flash


def test_a_failed_pass_is_an_error_that_says_so(engine: WhisperCppEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A non-zero status of whisper_full is not taken for an empty result."""
    monkeypatch.setattr(engine_module.whisper, "whisper_full", lambda *_: -6)
    with pytest.raises(EngineError, match="whisper_full returned -6"):
        engine.transcribe(np.zeros(16_000, np.float32), None)


class _AskedWithin(Stop):
    """Asked for by another thread as soon as a pass has begun: the pass looks once, and does not see it yet."""

    def __init__(self) -> None:
        super().__init__()
        self.other = threading.Thread(target=self.ask)

    def __call__(self) -> bool:
        asked = super().__call__()
        if self.other.ident is None:
            self.other.start()
        return asked


def _asked_before() -> Stop:
    stop = Stop()
    stop.ask()
    return stop


@pytest.mark.parametrize("make", [_asked_before, _AskedWithin])
def test_a_pass_that_is_told_to_stop_stops_and_leaves_nothing_behind(
    engine: WhisperCppEngine, heldout: Speech, make: Callable[[], Stop]
) -> None:
    """Before it begins, or while it runs; the next pass gives what it always gave."""
    samples = utterance(heldout, 2)
    first = engine.transcribe(samples, None)
    with pytest.raises(Stopped):
        engine.transcribe(samples, None, make(), attempt=2)
    assert engine.transcribe(samples, None, Stop()) == first
    assert engine.transcribe(samples, None) == first


def test_the_question_whether_to_stop_takes_the_gil_only_when_the_answer_is_yes(
    engine: WhisperCppEngine, heldout: Speech
) -> None:
    """Beside a busy event loop a thread that wants the GIL waits: a pass that nobody stops does not ask for it."""

    class Counting(Stop):
        answers: ClassVar[list[bool]] = []

        def __call__(self) -> bool:
            self.answers.append(super().__call__())
            return self.answers[-1]

    decoded = engine.transcribe(utterance(heldout, 2), None, Counting())
    assert decoded.segments
    assert Counting.answers == [False]  # once, when the pass begins; there are more tokens than that


def test_what_can_be_stopped_keeps_nothing_alive(engine: WhisperCppEngine, heldout: Speech) -> None:
    """The bindings' parameters and the callbacks that hold them would otherwise be there for ever."""
    stop = Stop()
    engine.transcribe(utterance(heldout, 2), None, stop)
    gone = weakref.ref(stop)
    del stop
    assert gone() is None


def test_work_is_the_context_and_the_window() -> None:
    """In seconds of audio; what a short window does not fill, the encoder goes through all the same."""
    assert load().work(5 * 16_000) == pytest.approx(258 * 0.02 + 5)
    assert load().work(1 * 16_000) == pytest.approx(128 * 0.02 + 1)
    assert load().work(12 * 16_000) == pytest.approx(608 * 0.02 + 12)
    assert load(audio_ctx=Fit.FULL).work(5 * 16_000) == pytest.approx(30 + 5)
    assert load(audio_ctx=512).work(16_000) == pytest.approx(512 * 0.02 + 1)


def test_the_work_of_a_later_attempt_is_never_guessed_too_low() -> None:
    """The share of the encoder differs from model to model: all of the cost is taken to grow with the context."""
    samples, first = 5 * 16_000, 258 * 0.02 + 5
    assert load().work(samples, attempt=1) == pytest.approx(first * 768 / 258)
    assert load().work(samples, attempt=2) == pytest.approx(first * 768 / 258)
    full = load(audio_ctx=Fit.FULL)
    assert full.work(samples, attempt=2) == full.work(samples)


def test_a_pass_that_says_more_than_there_is_time_for_is_ended(heldout: Speech) -> None:
    """Eight tokens a second and eight more: five seconds of speech given as half a second have many too many."""
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

    def _parameters(self, length: int, language: str | None, attempt: int) -> Any:
        parameters = super()._parameters(length, language, attempt)
        parameters.max_tokens = super()._parameters(4000, language, attempt).max_tokens
        return parameters


def test_a_window_leaves_no_object_behind(engine: WhisperCppEngine, heldout: Speech) -> None:
    """Not even in CPython's lists of freed tuples, which a full collection empties but hours without one fill."""
    samples, windows = utterance(heldout, 1), 20

    def blocks_after(count: int) -> int:
        for _ in range(count):
            for segment in engine.transcribe(samples, None).segments:
                segment.shifted(1)
        return sys.getallocatedblocks()

    gc.collect()
    before = blocks_after(2 * windows)  # the first ones fill what is used again
    assert blocks_after(windows) - before < windows


async def test_the_event_loop_runs_while_whisper_decodes(engine: WhisperCppEngine, heldout: Speech) -> None:
    """whisper_full releases the GIL: ticks go on during a pass."""
    samples = np.resize(heldout.samples, 28 * 16_000)
    decoding = asyncio.create_task(asyncio.to_thread(engine.transcribe, samples, None))
    ticks = 0
    while not decoding.done():
        await asyncio.sleep(0)
        ticks += 1
    await decoding
    assert ticks > 100


def test_a_characters_bytes_may_span_tokens() -> None:
    """A word whose UTF-8 is split over tokens is put together before it is decoded."""
    word = tokens._Word(b"", 0, 0, [])
    for part in (b" caf", b"\xc3", b"\xa9"):
        word.add(part, 10, -0.1)
    assert word.done(16_000).text == "café"


def test_the_interpreter_ends_cleanly_after_decoding() -> None:
    """The bindings let go of the log callback in time; after the interpreter is gone it would abort the process."""
    script = (
        "import numpy as np; from transcriber.models import store; from transcriber.worker import engine\n"
        "options = engine.WhisperOptions(path=store.bundled_model_path(), threads=1)\n"
        "engine.WhisperCppEngine(options).transcribe(np.zeros(16000, np.float32), None)\n"
        "del engine._log\n"  # as happens in the course of finalization
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
