"""The contract of every engine, on the bundled model: text, words and bounds, and no state that carries over."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soxr
from harness import Speech

from transcriber.domain.errors import ModelError, Stopped
from transcriber.domain.timeline import Guidance
from transcriber.models import store
from transcriber.worker.cancellation import Stop
from transcriber.worker.context import Fit
from transcriber.worker.engine import Engine, EngineName, WhisperOptions
from transcriber.worker.engine import Speech as Heard
from transcriber.worker.engines.loading import load_engine

Load = Callable[..., Engine]


@pytest.fixture(scope="module", params=list(EngineName))
def load(request: pytest.FixtureRequest, bundled_folder: Path) -> Load:
    """Load the bundled model with the test's own options."""
    path = bundled_folder if request.param is EngineName.CTRANSLATE2 else store.bundled_model_path()
    return lambda **options: load_engine(WhisperOptions(path=path, threads=1, **options))


@pytest.fixture(scope="module")
def engine(load: Load) -> Engine:
    return load()


def utterance(speech: Speech, index: int) -> np.ndarray:
    return speech.cut(index, index + 1).samples


def text(engine: Engine, samples: np.ndarray) -> str:
    return " ".join(s.text for s in engine.transcribe(samples, None).segments)


def test_speech_becomes_its_words(engine: Engine, demo_speech: Speech) -> None:
    """The text is the sentence, under the model's name and language."""
    sentence = demo_speech.cut(3, 4)
    decoded = engine.transcribe(soxr.resample(sentence.samples, sentence.rate, 16_000, "HQ"), None)
    assert " ".join(s.text for s in decoded.segments) == sentence.words
    assert decoded.language == "en"
    assert engine.model in ("ggml-dispatch-mini", "ct2-dispatch-mini")


@pytest.mark.parametrize("language", ["auto", "de", "xx", ""])
def test_an_english_model_stays_english(engine: Engine, heldout: Speech, language: str) -> None:
    """A hint for another language changes neither the text nor the reported language."""
    assert engine.transcribe(utterance(heldout, 2), language) == engine.transcribe(utterance(heldout, 2), None)


def test_words_come_from_token_data_with_bounds_and_confidences(engine: Engine, heldout: Speech) -> None:
    """Joined words are the text. They lie in order inside the window, and confidences are probabilities."""
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


def test_every_call_sets_every_parameter(engine: Engine, load: Load, heldout: Speech) -> None:
    """The same window gives the same result, whatever was decoded, hinted or aborted before."""
    first = engine.transcribe(utterance(heldout, 2), None)
    engine.transcribe(utterance(heldout, 5), "de")
    engine.transcribe(np.zeros(16_000, np.float32), "auto")
    assert engine.transcribe(utterance(heldout, 2), None) == first
    assert load().transcribe(utterance(heldout, 2), None) == first


def test_a_prompt_and_a_full_context_are_accepted(load: Load, heldout: Speech) -> None:
    """Vocabulary in the prompt and the full encoder are settings, not code."""
    words = set(heldout.rows[1]["words"].split())
    for options in ({"prompt": "train, platform"}, {"audio_ctx": Fit.FULL}, {"audio_ctx": 768}):
        heard = set(text(load(**options), utterance(heldout, 1)).split())
        assert len(words & heard) >= len(words) - 1, options


def test_a_prompt_is_for_its_own_window_alone(engine: Engine, load: Load, heldout: Speech) -> None:
    """It does what the setting does, or takes the setting's place. The next window has none of it."""
    samples, prompt = utterance(heldout, 2), "red train, " * 100  # so much that this model says something else
    plain = engine.transcribe(samples, None)
    guided = engine.transcribe(samples, None, guidance=Guidance(prompt))
    assert engine.transcribe(samples, None) == plain
    assert guided.segments != plain.segments
    assert not guided.endless  # there is room for the text
    set_up = load(prompt=prompt)
    assert set_up.transcribe(samples, None) == guided
    assert set_up.transcribe(samples, None, guidance=Guidance("")) == plain


def test_windows_with_prompts_share_no_state_in_a_pass(engine: Engine, heldout: Speech) -> None:
    """Of several lengths, and more than are remembered. Each text is the one that its window has alone."""
    samples = utterance(heldout, 2)
    prompts = [None, "Kiel", "Kiel, Ulm, Hagen", "", None]
    found = engine.transcribe_many([Heard(samples, None, Guidance(prompt)) for prompt in prompts])
    alone = [engine.transcribe(samples, None, guidance=Guidance(prompt)) for prompt in prompts]
    assert [" ".join(s.text for s in d.segments) for d in found] == [
        " ".join(s.text for s in d.segments) for d in alone
    ]
    assert found[0].segments == found[3].segments == found[4].segments


def test_an_english_model_translates_nothing(engine: Engine, heldout: Speech) -> None:
    """It says so, and transcribes."""
    assert not engine.multilingual
    samples = utterance(heldout, 2)
    assert engine.transcribe(samples, None, guidance=Guidance(translate=True)) == engine.transcribe(samples, None)


@pytest.mark.parametrize("length", [0, 1, 160, 1600, 8000])
def test_a_window_shorter_than_a_frame_is_decoded(engine: Engine, length: int) -> None:
    """Padding keeps an engine from failing on next to nothing. Bounds stay inside the window."""
    for segment in engine.transcribe(np.zeros(length, np.float32), None).segments:
        assert segment.end <= length


def test_a_pass_over_several_windows_gives_each_its_own_text(engine: Engine, heldout: Speech) -> None:
    """Words, bounds and order, whatever the others' lengths. Silence among them has no words."""
    spoken = [utterance(heldout, n) for n in (1, 2, 5)]
    windows = [spoken[0], np.zeros(8_000, np.float32), *spoken[1:]]
    found = engine.transcribe_many([Heard(samples, None) for samples in windows])
    for samples, decoded in zip(windows, found, strict=True):
        alone = [word for segment in engine.transcribe(samples, None).segments for word in segment.words]
        words = [word for segment in decoded.segments for word in segment.words]
        assert [word.text for word in words] == [word.text for word in alone]
        assert all(0 <= word.start <= word.end <= len(samples) for word in words)
        assert all(abs(word.start - same.start) <= 1600 for word, same in zip(words, alone, strict=True))  # 0.1 s
    counts = [sum(len(segment.words) for segment in decoded.segments) for decoded in found]
    assert [counts[n] for n in (0, 2, 3)] == [len(heldout.rows[n]["words"].split()) for n in (1, 2, 5)]


def test_a_quick_pass_has_the_same_words(engine: Engine, heldout: Speech) -> None:
    """The bundled model is sure enough of them without beam search."""
    assert engine.transcribe(utterance(heldout, 2), None, quick=True).segments


def test_stoppable_pass_keeps_nothing_alive(engine: Engine, heldout: Speech) -> None:
    """Otherwise the bindings' parameters and their callbacks would stay for ever."""
    stop = Stop()
    engine.transcribe(utterance(heldout, 2), None, stop)
    gone = weakref.ref(stop)
    del stop
    assert gone() is None


def test_a_window_leaves_no_object_behind(engine: Engine, heldout: Speech) -> None:
    """CPython's lists of freed tuples are checked too. A full collection empties them, hours without one fill them."""
    samples, windows = utterance(heldout, 1), 20

    def blocks_after(count: int) -> int:
        for _ in range(count):
            for segment in engine.transcribe(samples, None).segments:
                segment.shifted(1)
        return sys.getallocatedblocks()

    gc.collect()
    counts = [blocks_after(8 * windows)]  # the first ones fill what is used again
    counts += [blocks_after(windows) for _ in range(3)]
    assert min(after - before for before, after in itertools.pairwise(counts)) < windows


async def test_the_event_loop_runs_during_a_pass(engine: Engine, heldout: Speech) -> None:
    """The library releases the GIL, so the loop goes on ticking."""
    samples = np.resize(heldout.samples, 28 * 16_000)
    decoding = asyncio.create_task(asyncio.to_thread(engine.transcribe, samples, None))
    ticks = 0
    while not decoding.done():
        await asyncio.sleep(0)
        ticks += 1
    await decoding
    assert ticks > 100


def test_a_pass_that_is_to_stop_before_it_begins_is_stopped(engine: Engine, heldout: Speech) -> None:
    """It gives out no result, and the next pass gives the usual one."""
    samples = utterance(heldout, 2)
    first = engine.transcribe(samples, None)
    stop = Stop()
    stop.request()
    with pytest.raises(Stopped):
        engine.transcribe(samples, None, stop)
    assert engine.transcribe(samples, None) == first


def test_a_closed_engine_gives_its_memory_back(load: Load, heldout: Speech) -> None:
    """A closed engine takes no more calls. Other engines are not touched."""
    closed, other = load(), load()
    closed.close()
    assert text(other, utterance(heldout, 2))


def test_work_grows_with_the_window_and_with_the_attempt(engine: Engine) -> None:
    """Work is in seconds of audio: the window's own, and those of the encoder's context."""
    short, long = engine.work(16_000), engine.work(10 * 16_000)
    assert 1 < short < 10 < long
    assert engine.work(16_000, attempt=1) > short


@pytest.mark.parametrize("engine_name", list(EngineName))
def test_a_model_of_the_other_format_is_refused_in_a_sentence(engine_name: EngineName, bundled_folder: Path) -> None:
    """It does not crash in native code."""
    other = store.bundled_model_path() if engine_name is EngineName.CTRANSLATE2 else bundled_folder
    with pytest.raises(ModelError, match=r"is a f\w+, but WHISPER_ENGINE=\S+ needs a f\w+"):
        load_engine(WhisperOptions(path=other, threads=1, engine=engine_name))
