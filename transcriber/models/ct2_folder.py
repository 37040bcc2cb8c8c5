"""Proves that a folder holds a complete CTranslate2 Whisper, before native code loads it.

CTranslate2 needs `model.bin`, `config.json` and a vocabulary. The vocabulary turns tokens into text, and
`tokenizer.json` turns a prompt into tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transcriber.domain import languages
from transcriber.domain.errors import ModelError
from transcriber.models.byte_level import spelled
from transcriber.models.ct2_weights import read_weights
from transcriber.models.to_ggml import header_of

if TYPE_CHECKING:
    from transcriber.models.ggml import ModelHeader

WEIGHTS, CONFIG, TOKENIZER = "model.bin", "config.json", "tokenizer.json"
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")  # in newer and in older conversions
_READ = (WEIGHTS, CONFIG, TOKENIZER, *VOCABULARIES)

_END_OF_TEXT, _START, _TRANSLATE, _FIRST_TIME = "<|endoftext|>", "<|startoftranscript|>", "<|translate|>", "<|0.00|>"
_SPECIAL = (_END_OF_TEXT, _START, _TRANSLATE, "<|transcribe|>", "<|startofprev|>", "<|notimestamps|>", _FIRST_TIME)
TIME_SECS = 0.02  # from one timestamp to the next


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by number, spelled in GPT-2's alphabet or named between `<|` and `|>`; and numbers by token."""

    tokens: tuple[str, ...]
    numbers: dict[str, int]

    def text(self, number: int) -> bytes | None:
        """The bytes of a text token; None for any other token."""
        return spelled(self.tokens[number]) if number < self.numbers[_END_OF_TEXT] else None

    def seconds(self, number: int) -> float | None:
        """The time of a timestamp token, in seconds; None for any other token."""
        steps = number - self.numbers[_FIRST_TIME]
        return steps * TIME_SECS if steps >= 0 else None

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages with a token. Conversions name some differently, but the order is the same."""
        return languages.WHISPER_ORDER[: self.numbers[_TRANSLATE] - self.numbers[_START] - 1]

    def number_of(self, language: str) -> int:
        """The number of a language's token."""
        return self.numbers[_START] + 1 + languages.WHISPER_ORDER.index(language)

    def language(self, token: str) -> str:
        """The code of a language's token."""
        return languages.WHISPER_ORDER[self.numbers[token] - self.numbers[_START] - 1]

    @property
    def unspoken(self) -> list[int]:
        """Tokens other than text, its end and timestamps: they occur in prompts only."""
        return list(range(self.numbers[_START], self.numbers[_FIRST_TIME]))


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A CTranslate2 Whisper on disk."""

    path: Path
    header: ModelHeader
    vocabulary: Vocabulary


def check_model_folder(path: str | Path) -> ModelFolder:
    """Return what the folder holds, if CTranslate2 can load it. The weights are not read.

    A folder whose files have not changed since the last check is not read again.

    Raises `ModelError`: no such folder; a file is missing, truncated or of another kind; the vocabulary is another's.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelError(str(path), "is not a folder" if path.exists() else "no such folder")
    return _checked(path, _state(path))


def _state(path: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Name, inode, size and time of change of each file that the check reads. They differ once a file is replaced."""
    try:
        found = [(name, (path / name).stat()) for name in _READ if (path / name).exists()]
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror}") from error
    return tuple([(name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found])


@lru_cache(maxsize=1)  # a start checks one folder three times: for the windows' length, to verify it, and to load it
def _checked(path: Path, _state: object) -> ModelFolder:
    try:
        header = _read_header(path / WEIGHTS)
        _check_config(path / CONFIG)
        _read_json(path / TOKENIZER)
        vocabulary = _read_vocabulary(path)
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise ModelError(str(path), f"is a directory without {missing}, so no CTranslate2 model") from None
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror}") from error
    if len(vocabulary.tokens) != header.n_vocab:
        reason = f"its vocabulary has {len(vocabulary.tokens)} tokens, its weights have {header.n_vocab}"
        raise ModelError(str(path), reason)
    return ModelFolder(path, header, vocabulary)


def _read_header(path: Path) -> ModelHeader:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        raise ModelError(str(path), "is empty")
    try:
        return header_of(read_weights(path))
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(str(path), f"is not a Whisper: it lacks {error}") from error


def _check_config(path: Path) -> None:
    """Check the entries that CTranslate2 reads for each window, where it would fail."""
    config = _read_json(path)
    for name in ("suppress_ids", "suppress_ids_begin"):
        value = config.get(name) if isinstance(config, dict) else None
        if not isinstance(value, list) or not all(isinstance(number, int) for number in value):
            raise ModelError(str(path), "must have lists of numbers called suppress_ids and suppress_ids_begin")


def _read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is what it is
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(str(path), f"is not JSON: {error}") from error


def _read_vocabulary(path: Path) -> Vocabulary:
    found = next((path / name for name in VOCABULARIES if (path / name).exists()), path / VOCABULARIES[-1])
    if found.suffix == ".json":
        names = _read_json(found)
    else:
        try:
            names = found.read_text("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise ModelError(str(found), f"is not text: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(str(found), "must be a list of tokens")
    vocabulary = Vocabulary(tuple(names), {name: number for number, name in enumerate(names)})
    if missing := [name for name in _SPECIAL if name not in vocabulary.numbers]:
        raise ModelError(str(found), f"lacks {', '.join(missing)}")
    try:
        for name in names[: vocabulary.numbers[_END_OF_TEXT]]:
            spelled(name)
    except KeyError as error:
        raise ModelError(str(found), f"has a token with {error}, which is not of GPT-2's alphabet") from error
    return vocabulary
