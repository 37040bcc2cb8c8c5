"""Official models on real speech: words and languages, no runaway text, next to none where nobody speaks.

`pytest -m real` runs these. They pull tiny.en and base where they are not there yet; those on recordings of people want
a folder named by `TRANSCRIBER_REAL_SPEECH`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real
from benchmarks_run import bench

from transcriber.cli.spoken import matching, words
from transcriber.domain.timeline import Guidance, Origin, Window
from transcriber.models import store
from transcriber.models.catalogue import Format
from transcriber.models.index import PACKAGED
from transcriber.recording import read_16k
from transcriber.worker.decoding import decode
from transcriber.worker.engine import Decoded, Engine, Speech, WhisperOptions
from transcriber.worker.engines.loading import load_engine

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

MOST_WORDS_A_SECOND = 8
PARTS = ((0, "auto"), (5, "de"), (10, "en"))  # of the talk: from which second, and the language asked for


@cache
def engine(name: str, model_format: Format = Format.GGML) -> Engine:
    return load_engine(WhisperOptions(path=real.model(name, model_format), threads=1))


@cache
def talk() -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The repository's own recording of ordinary English, with its words and their times."""
    rows = json.loads(store.bundled("talk.json").read_text())
    return read_16k(store.bundled("talk.flac")), rows


def spoken(decoded: Decoded) -> list[str]:
    return words(" ".join(segment.text for segment in decoded.segments))


FORMATS = pytest.mark.parametrize("model_format", list(Format))


@FORMATS
@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_cut_windows_are_understood_and_end(name: str, model_format: Format) -> None:
    """The daemon decodes each sentence alone. Its words come, and no more than there are."""
    samples, rows = talk()
    right = said = 0
    for row in rows:
        cut = samples[round(row["start"] * 16_000) : round(row["end"] * 16_000)]
        window = Window(origin=Origin("s", "x"), sequence=0, start=0, end=len(cut), samples=cut, language="en")
        found = decode(engine(name, model_format), window)
        heard, spoken = words(found.recognition.text), words(row["words"])
        assert len(heard) <= 1.3 * len(spoken) + 2
        right, said = right + matching(spoken, heard), said + len(spoken)
    assert right >= 0.94 * said


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_a_converted_model_is_the_published_one_to_the_byte(name: str) -> None:
    """The conversion of the ggml file has the sha256 of the official one for CTranslate2."""
    folder = real.model(name, Format.CTRANSLATE2)
    assert store.digest(folder / "model.bin") == PACKAGED[name].sha256


@FORMATS
def test_words_lie_where_they_are_said(model_format: Format) -> None:
    """A window of several sentences: words are in order, inside the window, and not in the pauses."""
    samples, rows = talk()
    end = round(rows[2]["end"] * 16_000)
    (found,) = [engine("tiny.en", model_format).transcribe(samples[:end], "en")]
    heard = [word for segment in found.segments for word in segment.words]
    assert [word.start for word in heard] == sorted(word.start for word in heard)
    assert all(0 <= word.start <= word.end <= end for word in heard)
    spoken = [(row["start"] - 0.5, row["end"] + 0.5) for row in rows[:3]]
    inside = [any(a <= (word.start + word.end) / 32_000 <= b for a, b in spoken) for word in heard]
    assert sum(inside) >= 0.9 * len(inside)


@FORMATS
def test_the_language_is_detected_and_leaves_no_trace(model_format: Format) -> None:
    """`auto` is right whatever was decoded before, and does not change what follows."""
    samples = talk()[0][: 5 * 16_000]
    base = engine("base", model_format)
    first = base.transcribe(samples, "auto")
    assert first.language == "en"
    base.transcribe(samples, "de", attempt=1)
    assert base.transcribe(samples, "auto") == first
    assert base.transcribe(samples, "en").segments == first.segments


def test_a_batch_holds_windows_of_several_languages() -> None:
    """And of several lengths: each has the language asked for, or the detected one, and the text that it has alone."""
    samples, base = talk()[0], engine("base", Format.CTRANSLATE2)
    parts = zip((8, 3, 5), PARTS, strict=True)
    windows = [Speech(samples[start * 16_000 : (start + seconds) * 16_000], code) for seconds, (start, code) in parts]
    found = base.transcribe_many(windows)
    assert [decoded.language for decoded in found] == ["en", "de", "en"]
    for window, decoded in zip(windows, found, strict=True):
        alone = base.transcribe(window.samples, window.language)
        assert decoded.language == alone.language
        assert matching(spoken(decoded), spoken(alone)) >= 0.8 * len(spoken(alone))


def test_streaming_loses_few_words_and_never_runs_away(tmp_path: Path) -> None:
    """tiny.en through the daemon, one recording of each kind: close to the whole recording, and never too fast."""
    real.rows()
    arguments = ("--speech", str(real.SPEECH), "--model", str(real.model("tiny.en")), "--most", "1", "--threads", "1")
    found, _ = bench(tmp_path, "fidelity", *arguments)
    figures = found["figures"]
    streamed, whole = (figures["english"]["wer"][way] for way in ("daemon", "whole"))
    assert streamed <= whole + 0.04  # one word is about a point
    assert all(kind["fastest"]["words_a_second"] <= MOST_WORDS_A_SECOND for kind in figures["kinds"].values())
    assert figures["kinds"]["nonspeech"]["no_speech"]["with_text"]["daemon"] == 0


@FORMATS
def test_speech_is_translated_where_that_is_asked_for(model_format: Format) -> None:
    """Swedish numbers come in English. The language stays the spoken one, and the next window is not translated."""
    (counting,) = [row for row in real.rows() if row.kind == "lang-sv" and (row.text or "").startswith("Testar")]
    samples, base = read_16k(counting.path), engine("base", model_format)
    plain = base.transcribe(samples, "auto")
    translated = base.transcribe(samples, "auto", guidance=Guidance(translate=True))
    assert base.transcribe(samples, "auto") == plain
    assert plain.language == translated.language == "sv"
    assert spoken(translated)[0] == "test" != spoken(plain)[0]


@FORMATS
def test_a_prompt_of_full_length_leaves_room_for_the_text(model_format: Format) -> None:
    """An official model hears the same words after it, or names as the prompt spells them."""
    samples, rows = talk()
    cut = samples[round(rows[0]["start"] * 16_000) : round(rows[0]["end"] * 16_000)]
    prompt = "Names that come up: Kiel, Ulm, Hagen, Bonn. " * 20
    found = engine("tiny.en", model_format).transcribe(cut, "en", guidance=Guidance(prompt[-896:]))
    assert not found.endless
    assert matching(words(rows[0]["words"]), spoken(found)) >= 0.8 * len(words(rows[0]["words"]))
