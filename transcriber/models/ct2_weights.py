"""The weights in a CTranslate2 model.bin, as views of the file: data is read when it is used.

Source of the format: `Model::load` in CTranslate2's src/models/model.cc, binary version 6.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from transcriber.domain.errors import ModelError

VERSION = 6
SPEC = "WhisperSpec"
DTYPES = {0: "<f4", 1: "|i1", 2: "<i2", 3: "<i4", 4: "<f2"}  # CTranslate2's DataType, as far as a Whisper uses it

Array = npt.NDArray[Any]


def read_weights(path: Path) -> Mapping[str, Array]:
    """Return every variable of the file by name, in its own shape and type.

    Raises `ModelError` if it is not a CTranslate2 Whisper, of another version, or damaged; and `OSError`.
    """
    cursor = _Cursor(np.memmap(path, np.uint8, "r"))
    try:
        version, spec = cursor.number("I"), cursor.text()
        if (version, spec) != (VERSION, SPEC):
            raise ModelError(str(path), f"is {spec!r} of version {version}, must be {SPEC!r} of version {VERSION}")
        cursor.number("I")  # the revision of the specification; all have the same weights
        found = dict(cursor.variable() for _ in range(cursor.number("I")))
        for _ in range(cursor.number("I")):  # a name of something that has one
            alias, name = cursor.text(), cursor.text()
            found[alias] = found[name]
    except (struct.error, ValueError, KeyError) as error:
        raise ModelError(str(path), f"is not a whole CTranslate2 model: {error} at byte {cursor.at}") from error
    return found


@dataclass(slots=True)
class _Cursor:
    """A position in the file, which moves as data is taken."""

    data: npt.NDArray[np.uint8]
    at: int = 0

    def take(self, count: int) -> npt.NDArray[np.uint8]:
        taken = self.data[self.at : self.at + count]
        if len(taken) < count:
            raise ValueError(f"{len(taken)} bytes are left of {count}")
        self.at += count
        return taken

    def number(self, kind: str) -> int:
        (value,) = struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)).data)
        return int(value)

    def text(self) -> str:
        return self.take(self.number("H")).tobytes().removesuffix(b"\0").decode()

    def variable(self) -> tuple[str, Array]:
        name, rank = self.text(), self.number("B")
        shape = tuple(self.number("I") for _ in range(rank))
        kind, size = np.dtype(DTYPES[self.number("B")]), self.number("I")
        if size != prod(shape) * kind.itemsize:
            raise ValueError(f"{name} has {size} bytes, which is not {kind} {list(shape)}")
        return name, self.take(size).view(kind).reshape(shape)
