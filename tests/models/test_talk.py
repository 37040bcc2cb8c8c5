"""The recording for models that know any words: its contents, its recipe, and that models understand it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import real
import soundfile
from places import ROOT

from transcriber.cli.spoken import matching, words

FLAC, ROWS = ROOT / "models" / "talk.flac", json.loads((ROOT / "models" / "talk.json").read_text())


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    audio, rate = soundfile.read(FLAC)
    assert rate == 16_000
    return audio


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("talk", ROOT / "tools" / "bundled_model" / "talk.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def spoken(row: dict[str, Any], samples: np.ndarray) -> np.ndarray:
    return samples[round(row["start"] * 16_000) : round(row["end"] * 16_000)]


def test_recording_is_a_minute_of_voices_in_a_small_file(samples: np.ndarray) -> None:
    """It is long enough to see the text keep up, and small enough for the wheel."""
    assert 60 < len(samples) / 16_000 < 90
    assert FLAC.stat().st_size < 2_500_000
    assert len({row["voice"] for row in ROWS}) >= 4


def test_the_rows_say_where_speech_is(samples: np.ndarray) -> None:
    """Sound lies from each start to each end, and 0.6 to 1.2 s of silence between them."""
    quiet = np.ones(len(samples), bool)
    for row in ROWS:
        loud = np.abs(spoken(row, samples)) > 0.001
        assert loud[:800].any()
        assert loud[-800:].any()
        quiet[round(row["start"] * 16_000) : round(row["end"] * 16_000)] = False
    assert not samples[quiet].any()
    pauses = [after["start"] - before["end"] for before, after in pairwise(ROWS)]
    assert all(0.599 < pause < 1.201 for pause in pauses)
    assert len({round(pause, 1) for pause in pauses}) >= 4


def test_voices_differ_in_level_and_none_is_clipped(samples: np.ndarray) -> None:
    """They are as different as those of people around one microphone."""
    peaks = {row["voice"]: np.abs(spoken(row, samples)).max() for row in ROWS}
    assert max(peaks.values()) < 0.99
    assert max(peaks.values()) > 2 * min(peaks.values())


def test_the_bundled_model_knows_few_of_its_words() -> None:
    """The recording shows more than the dispatch recording can."""
    known = {word for row in json.loads((ROOT / "models" / "demo.json").read_text()) for word in words(row["words"])}
    said = [word for row in ROWS for word in words(row["words"])]
    assert len(said) > 150
    assert sum(word in known for word in said) < len(said) / 4
    assert len(set(said)) > 100


def test_the_rows_are_the_sentences_of_the_recipe(recipe: ModuleType) -> None:
    """After a change of a sentence the recording must be made again."""
    assert [(row["voice"], row["words"]) for row in ROWS] == [*recipe.SENTENCES]


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_recipe_makes_the_same_recording_again(recipe: ModuleType, samples: np.ndarray) -> None:
    """Sentences and times are the same. The sound differs only by how a processor rounds."""
    again, rows = recipe.recording()
    assert rows == ROWS
    np.testing.assert_allclose(again / 32_768, samples, atol=0.002)


@pytest.mark.real
def test_official_model_understands_the_recording(samples: np.ndarray) -> None:
    """tiny.en, the smallest, hears at least 95 % of the words as they were said."""
    from pywhispercpp.model import Model

    model = Model(str(real.model("tiny.en")), n_threads=2, language="en", redirect_whispercpp_logs_to=None)
    heard = words(" ".join(segment.text for segment in model.transcribe(samples.astype(np.float32))))
    said = [word for row in ROWS for word in words(row["words"])]
    assert matching(said, heard) >= 0.95 * len(said)
    assert len(heard) <= 1.05 * len(said)
