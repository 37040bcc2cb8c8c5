"""Folders for CTranslate2: how they are made of a ggml file, and what is refused before native code sees it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from transcriber.domain import languages
from transcriber.domain.errors import ModelError
from transcriber.models import store
from transcriber.models.ct2_folder import check_model_folder
from transcriber.models.ct2_weights import read_weights
from transcriber.models.ggml import check_model_file
from transcriber.models.to_ctranslate2 import convert
from transcriber.models.to_ggml import convert as convert_back
from transcriber.models.to_ggml import mel_filters


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


DAMAGED = {
    "no weights": (without("model.bin"), "without model.bin"),
    "no tokenizer": (without("tokenizer.json"), "without tokenizer.json"),
    "no vocabulary": (without("vocabulary.txt"), "without vocabulary.txt"),
    "no configuration": (without("config.json"), "without config.json"),
    "empty weights": (edit("model.bin", lambda _: b""), "is empty"),
    "truncated": (edit("model.bin", lambda data: data[: len(data) // 2]), "is not a whole CTranslate2 model"),
    "random": (edit("model.bin", lambda _: bytes(range(256)) * 100), "is not a whole CTranslate2 model"),
    "another vocabulary": (edit("vocabulary.txt", lambda data: data + b"more\n"), "its weights have 51864"),
    "no special tokens": (edit("vocabulary.txt", lambda data: data.replace(b"<|0.00|>", b"x")), "lacks <|0.00|>"),
    "not text": (edit("vocabulary.txt", lambda data: b"\xff" + data), "is not text"),
    "strange letters": (edit("vocabulary.txt", lambda data: data.replace(b"!", b"\xe2\x82\xac", 1)), "alphabet"),
    "broken JSON": (edit("config.json", lambda data: data[:-2]), "is not JSON"),
    "nothing configured": (edit("config.json", lambda _: b"{}"), "must have lists of numbers"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_folder_is_refused_with_what_is_wrong(case: str, bundled_folder: Path, tmp_path: Path) -> None:
    """CTranslate2 would say less, or load it and fail at each window."""
    damage, reason = DAMAGED[case]
    folder = tmp_path / "model"
    shutil.copytree(bundled_folder, folder)
    damage(folder)
    with pytest.raises(ModelError) as caught:
        check_model_folder(folder)
    assert reason in caught.value.reason


def test_file_and_missing_path_are_told_apart_from_a_folder(tmp_path: Path) -> None:
    """Each has an error of its own."""
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is not a folder"):
        check_model_folder(tmp_path / "file")
    with pytest.raises(ModelError, match="no such folder"):
        check_model_folder(tmp_path / "nothing")


def test_a_converted_model_has_the_same_dimensions_and_weights(bundled_folder: Path, tmp_path: Path) -> None:
    """There and back again every tensor is the same. Those in float32 have passed through float16."""
    assert check_model_folder(bundled_folder).header == check_model_file(store.bundled_model_path())
    back = tmp_path / "ggml.bin"
    vocabulary = (bundled_folder / "vocabulary.txt").read_text()
    convert_back(bundled_folder / "model.bin", vocabulary, mel_filters(store.bundled_model_path()), back)
    again = tmp_path / "again"
    again.mkdir()
    convert(back, again)
    first, second = read_weights(bundled_folder / "model.bin"), read_weights(again / "model.bin")
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_quantised_weights_are_not_converted(tmp_path: Path) -> None:
    """They would be rounded twice without notice."""
    folder = tmp_path / "folder"
    folder.mkdir()
    quantised = tmp_path / "ggml.bin"
    data = bytearray(store.bundled_model_path().read_bytes())
    data[44:48] = (8).to_bytes(4, "little")  # the header's type of weights: q5_0
    quantised.write_bytes(data)
    with pytest.raises(ModelError):
        convert(quantised, folder)


def test_the_tokenizer_splits_words_as_the_vocabulary_says(bundled_folder: Path) -> None:
    """Merges follow from the order of the tokens. Joined again, the parts are the word."""
    tokenizer = Tokenizer.from_file(str(bundled_folder / "tokenizer.json"))
    found = tokenizer.encode(" Mind the gap, naïve señor: 1234!", add_special_tokens=False)
    vocabulary = check_model_folder(bundled_folder).vocabulary
    texts = [vocabulary.text(number) for number in found.ids]
    assert b"".join(text for text in texts if text) == " Mind the gap, naïve señor: 1234!".encode()
    assert texts[:3] == [b" Mind", b" the", b" gap"]


def test_special_tokens_are_told_from_text(bundled_folder: Path) -> None:
    """Each is text, a timestamp, or neither. Languages are in Whisper's own order."""
    vocabulary = check_model_folder(bundled_folder).vocabulary
    assert vocabulary.text(vocabulary.numbers["<|endoftext|>"]) is None
    assert vocabulary.seconds(vocabulary.numbers["<|1.50|>"]) == pytest.approx(1.5)
    assert vocabulary.seconds(vocabulary.numbers["<|notimestamps|>"]) is None
    assert vocabulary.languages == languages.WHISPER_ORDER[:99]
    assert vocabulary.number_of("de") == vocabulary.numbers["<|de|>"]
    assert vocabulary.language("<|de|>") == "de"


def test_a_folder_that_is_right_is_kept(bundled_folder: Path) -> None:
    """Another pull finds it and says so."""
    pulled = store.Pulled(store.bundled_model_path(), "bundled")
    again = store.pull_folder("dispatch-mini", bundled_folder.parent, pulled)
    assert (again.path, again.origin) == (bundled_folder, "was here already")


def test_a_folder_that_is_damaged_is_made_again(bundled_folder: Path, tmp_path: Path) -> None:
    """Afterwards the models' place holds nothing else."""
    damaged = tmp_path / bundled_folder.name
    shutil.copytree(bundled_folder, damaged)
    (damaged / "config.json").unlink()
    store.pull_folder("dispatch-mini", tmp_path, store.Pulled(store.bundled_model_path(), "bundled"))
    assert json.loads((damaged / "config.json").read_text())["alignment_heads"]
    assert [path.name for path in tmp_path.iterdir()] == [damaged.name]
