"""`benchmarks fidelity` on a small folder of the repository's own recordings, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from benchmarks_run import bench, check_frame

from benchmarks import manifest, speech
from benchmarks.score import Errors, Scorer
from benchmarks.tally import Case, Streamed, Whole, figures
from transcriber.domain.errors import CannotStart

ROW = {"file": "a.flac", "kind": "clean", "text": "a word", "language": "en", "seconds": 1.0, "rate": 16_000}
ROW["channels"] = 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Utterances of the bundled recording at two rates, in stereo, in "another language", and silence."""
    material = speech.recording()
    rows: list[dict[str, Any]] = []

    def add(kind: str, samples: np.ndarray, rate: int, text: str | None, **more: object) -> None:
        name = f"{len(rows)}.flac"
        soundfile.write(tmp_path / name, samples, rate)
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        row = {"file": name, "kind": kind, "text": text, "seconds": len(samples) / rate, "rate": rate}
        rows.append({**row, "channels": channels, "note": "a key that nobody knows", **more})

    low = speech.resampled(material, 16_000)
    for n, utterance in enumerate(material.utterances[:4]):
        source = (material, low)[n % 2]
        samples = source.cut(utterance.start - 0.3, utterance.end + 0.3)
        if n == 0:
            samples = np.stack([samples, samples], axis=1)
        add("clean" if n < 2 else "spont", samples, source.rate, utterance.words.capitalize() + ".")
    first, second = material.utterances[:2]
    add("nonspeech", material.cut(first.end + 0.2, second.start - 0.2), material.rate, None, language=None)
    add("lang-de", low.cut(first.start, first.end), low.rate, "ein Zug", language="de")
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    return tmp_path


def test_fidelity_compares_the_daemon_with_whole_recordings(folder: Path, tmp_path: Path) -> None:
    """Every recording is decoded both ways. The model knows English only, and makes few errors in it."""
    found, out = bench(tmp_path, "fidelity", "--speech", str(folder), "--threads", "1")
    check_frame(found, "fidelity")
    assert set(found["figures"]["kinds"]) == {"clean", "spont", "nonspeech"}
    assert "note: left out, as the model knows English only: lang-de" in out
    clean, english = found["figures"]["kinds"]["clean"], found["figures"]["english"]
    assert clean["speech"] == {"files": 2, "words": len(said(folder, "clean"))}
    assert english["speech"]["words"] == len(said(folder, "clean") + said(folder, "spont"))
    assert english["wer"]["daemon"] <= 0.1
    assert english["wer"]["whole"] is not None
    assert all(english["cpu_seconds_a_second"][way] > 0 for way in ("daemon", "whole"))
    assert english["gap_seconds"] == {}
    assert found["figures"]["kinds"]["nonspeech"]["no_speech"]["files"] == 1
    first = found["figures"]["recordings"][0]
    assert first["daemon"]["text"].split() == first["said"].lower().rstrip(".").split()
    assert 1 < first["daemon"]["fastest_words_a_second"] < 6
    assert "all English" in out


def said(folder: Path, kind: str) -> list[str]:
    """The words of a kind, of which "forty two" and the like count as one."""
    rows = [row for row in json.loads((folder / "manifest.json").read_text()) if row["kind"] == kind]
    scorer = Scorer()
    return [word for row in rows for word in scorer.words(row["text"], "en")]


def test_quick_look_takes_some_kinds_some_files_and_one_way(folder: Path, tmp_path: Path) -> None:
    """`--kinds`, `--most` and `--no-whole` leave the rest out."""
    arguments = ("--kinds", "spont,nonspeech", "--most", "1", "--no-whole", "--threads", "1")
    found, out = bench(tmp_path, "fidelity", "--speech", str(folder), *arguments)
    assert [(r["file"], r["whole"]) for r in found["figures"]["recordings"]] == [("2.flac", None), ("4.flac", None)]
    assert set(found["figures"]["english"]["wer"]) == {"daemon"}
    assert found["ratios"] == {}
    assert "WER whole" not in out


def test_unknown_kinds_and_foreign_languages_alone_are_refused(folder: Path, tmp_path: Path) -> None:
    """The message names the kinds that exist, or says what the model lacks."""
    arguments = ("fidelity", "--speech", str(folder), "--threads", "1", "--kinds")
    _, err = bench(tmp_path, *arguments, "clean,loud", code=3)
    assert "--kinds loud: there is no such kind; there are clean, lang-de, nonspeech, spont" in err
    _, err = bench(tmp_path, *arguments, "lang-de", code=3)
    assert "ggml-dispatch-mini knows English only, and all recordings are in other languages" in err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "manifest.json: no such file or directory"),
        ("{", "manifest.json: is no JSON: "),
        ("[]", "manifest.json: must be a list of at least one row"),
        ("[1]", "manifest.json, row 1: must be an object with the keys file, kind, "),
        ([{"file": "a.flac"}], "row 1, key kind: is missing; a word, such as clean or lang-de is expected"),
        ([ROW, ROW | {"rate": "16k"}], 'row 2, key rate: "16k" is not a whole number from 8000 to 192000'),
        ([ROW | {"rate": True}], "row 1, key rate: true is not a whole number from 8000 to 192000"),
        ([ROW | {"rate": 8000}], "row 1, key rate: is 8000, but a.flac has 16000"),
        ([ROW | {"channels": 2}], "row 1, key channels: is 2, but a.flac has 1"),
        ([ROW | {"text": 5}], "row 1, key text: 5 is not a text, or null for a recording without speech"),
        ([ROW | {"seconds": 0}], "row 1, key seconds: 0 is not a number above 0"),
        (
            [ROW | {"language": "english"}],
            'row 1, key language: "english" is not an ISO 639-1 code such as en, or null',
        ),
        ([ROW | {"kind": "lang-de", "language": None}], "row 1, key language: is missing; a row of kind lang-de needs"),
        ([ROW | {"file": "b.flac"}], "b.flac: no such file or directory"),
        ([ROW | {"file": "manifest.json"}], "manifest.json: is JSON; allowed are "),
    ],
)
def test_a_bad_manifest_is_refused_by_file_row_and_key(tmp_path: Path, text: object, complaint: str) -> None:
    """The error is one clear sentence."""
    soundfile.write(tmp_path / "a.flac", np.zeros(16_000), 16_000)
    if text is not None:
        (tmp_path / "manifest.json").write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(CannotStart) as refused:
        manifest.read(tmp_path)
    assert str(tmp_path / "manifest.json") in str(refused.value)
    assert complaint in str(refused.value)


def test_a_row_without_a_language_is_english(tmp_path: Path) -> None:
    """Only rows of other languages need one."""
    soundfile.write(tmp_path / "a.flac", np.zeros(16_000), 16_000)
    (tmp_path / "manifest.json").write_text(json.dumps([{k: v for k, v in ROW.items() if k != "language"}]))
    (row,) = manifest.read(tmp_path)
    assert (row.language, row.english, row.foreign) == ("en", True, False)


def test_english_speech_comes_from_all_kinds_in_turn(folder: Path) -> None:
    """The first file of each kind comes, then the second, until there is enough. Files without words are left out."""
    rows = manifest.read(folder)
    assert [row.path.name for row in manifest.english_speech(rows, 1000)] == ["0.flac", "2.flac", "1.flac", "3.flac"]
    assert [row.path.name for row in manifest.english_speech(rows, 0.1)] == ["0.flac"]
    with pytest.raises(CannotStart, match="has no English speech with a text"):
        manifest.english_speech([row for row in rows if not row.english], 10)


@pytest.mark.parametrize(
    ("said", "heard", "language", "errors"),
    [
        ("Twenty-five colours, Mr. Smith!", "25 colors mister smith", "en", Errors(0, 4)),
        ("he's here", "[music] he is there", "en", Errors(1, 3)),
        ("Müller, ja!", "müller nein", "de", Errors(1, 2)),
        ("日本語", "日本人", "ja", Errors(1, 3)),
        ("", "you", "en", Errors(1, 0)),
    ],
)
def test_errors_are_counted_after_normalisation(said: str, heard: str, language: str, errors: Errors) -> None:
    """Numbers, spelling, punctuation and brackets cost nothing in English. Without spaces, letters count."""
    assert Scorer().errors(said, heard, language) == errors


def test_runaway_text_shows_in_the_fastest_rate(folder: Path) -> None:
    """The rate is in words per second of window, for a recording and for a kind. Gaps are added up."""
    scorer, (row, *_) = Scorer(), manifest.read(folder)
    final = {"type": "final", "sequence": 1, "start": 0.0, "end": 2.0, "text": "no " * 100}
    held = {"type": "suppressed", "text": "thank you"}
    ended = {"type": "ended", "gap": {"queue_full": 1.5}}
    case = Case.of(scorer, row, Streamed.of([final, held, ended], 1.0), Whole("", 1.0))
    found = figures([case])
    assert found["fastest"] == {"words_a_second": 50.0, "file": "0.flac"}
    assert (found["suppressed"], found["gap_seconds"]) == (1, {"queue_full": 1.5})
    assert found["wer"]["whole"] == 1.0
    assert found["wer"]["daemon"] > 5


def test_missing_dependency_group_is_an_error_with_its_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing package and the command that installs it."""
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    with pytest.raises(CannotStart, match=r"need whisper_normalizer.*: pip install --group bench brings it"):
        Scorer()
