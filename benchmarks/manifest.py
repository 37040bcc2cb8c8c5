"""Reads a folder of real speech: recordings, and `manifest.json`, which describes each of them."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speech import Material, Utterance
from transcriber.domain.errors import CannotStart, RecordingError
from transcriber.protocol import incoming
from transcriber.recording import Recording

NAME = "manifest.json"
OTHER_LANGUAGES, NO_SPEECH = "lang", "nonspeech"  # prefixes of their kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One recording. `text`: what is said in it, None for nothing; `language`: ISO 639-1; `rate` in Hz."""

    path: Path
    kind: str
    text: str | None
    language: str
    seconds: float
    rate: int
    channels: int

    @property
    def english(self) -> bool:
        """Whether it counts as English speech."""
        return not self.kind.startswith((OTHER_LANGUAGES, NO_SPEECH))

    @property
    def foreign(self) -> bool:
        return self.kind.startswith(OTHER_LANGUAGES)

    def material(self) -> Material:
        """The whole recording, mixed down to mono at its own rate. Raises `RecordingError`."""
        recording = Recording(self.path)
        blocks = [block.mean(axis=1) for block in recording.blocks(recording.rate)]
        samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
        return Material(samples, recording.rate, (Utterance(0.0, recording.seconds, self.text or ""),))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _is_one_of(allowed: range) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value in allowed


def _span(allowed: range) -> str:
    return f"a whole number from {allowed.start} to {allowed.stop - 1}"


# For each key a check of its value, and the words for what is allowed. A missing key has the value None.
_KEYS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "file": (lambda value: isinstance(value, str) and bool(value), "a file's name"),
    "kind": (lambda value: isinstance(value, str) and bool(value.strip()), "a word, such as clean or lang-de"),
    "text": (lambda value: value is None or isinstance(value, str), "a text, or null for a recording without speech"),
    "language": (
        lambda value: value is None or (isinstance(value, str) and re.fullmatch("[a-z]{2}", value) is not None),
        "an ISO 639-1 code such as en, or null",
    ),
    "seconds": (_is_number, "a number above 0"),
    "rate": (_is_one_of(incoming.RATES), _span(incoming.RATES)),
    "channels": (_is_one_of(incoming.CHANNEL_COUNTS), _span(incoming.CHANNEL_COUNTS)),
}


def read(folder: Path) -> tuple[Row, ...]:
    """Read and check the folder's manifest and the heads of its recordings.

    Raises `CannotStart` with the file, the row (from 1) and the key.
    """
    path = folder / NAME
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotStart(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # a UnicodeDecodeError too
        raise CannotStart(f"{path}: is no JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise CannotStart(f"{path}: must be a list of at least one row")
    return tuple(_row(folder, number, row) for number, row in enumerate(rows, 1))


def _row(folder: Path, number: int, row: object) -> Row:
    where = f"{folder / NAME}, row {number}"
    if not isinstance(row, dict):
        raise CannotStart(f"{where}: must be an object with the keys {', '.join(_KEYS)}")
    for key, (is_good, allowed) in _KEYS.items():
        if key not in row and key != "language":
            raise CannotStart(f"{where}, key {key}: is missing; {allowed} is expected")
        if not is_good(row.get(key)):
            raise CannotStart(f"{where}, key {key}: {json.dumps(row.get(key))} is not {allowed}")
    foreign = row["kind"].startswith(OTHER_LANGUAGES)
    if foreign and not row.get("language"):
        raise CannotStart(f"{where}, key language: is missing; a row of kind {row['kind']} needs it")
    try:
        recording = Recording(folder / row["file"])
    except RecordingError as error:
        raise CannotStart(f"{where}, key file: {error}") from error
    for key, found in (("rate", recording.rate), ("channels", recording.channels)):
        if row[key] != found:
            raise CannotStart(f"{where}, key {key}: is {row[key]}, but {row['file']} has {found}")
    language = row["language"] if foreign else "en"
    return Row(
        path=folder / row["file"],
        kind=row["kind"],
        text=row["text"],
        language=language,
        seconds=row["seconds"],
        rate=row["rate"],
        channels=row["channels"],
    )


def chosen(rows: Sequence[Row], kinds: Sequence[str] | None, most: int | None) -> tuple[Row, ...]:
    """Rows of these kinds, the first `most` of each. Raises `CannotStart` for an unknown kind."""
    known = sorted({row.kind for row in rows})
    for kind in kinds or ():
        if kind not in known:
            raise CannotStart(f"--kinds {kind}: there is no such kind; there are {', '.join(known)}")
    seen: Counter[str] = Counter()
    found = []
    for row in rows:
        seen[row.kind] += 1
        if (not kinds or row.kind in kinds) and (most is None or seen[row.kind] <= most):
            found.append(row)
    return tuple(found)


def english_speech(rows: Sequence[Row], seconds: float) -> tuple[Row, ...]:
    """English rows with a text, from the kinds in turn, up to so many seconds.

    Raises `CannotStart` if there are none.
    """
    places: Counter[str] = Counter()
    ranked = []
    for row in rows:
        if row.english and row.text:
            places[row.kind] += 1
            ranked.append((places[row.kind], row))
    found: list[Row] = []
    for _, row in sorted(ranked, key=lambda place: place[0]):
        if sum(r.seconds for r in found) >= seconds:
            break
        found.append(row)
    if not found:
        raise CannotStart(f"{NAME}: has no English speech with a text")
    return tuple(found)
