"""Proves that a file is a complete ggml Whisper model, without native code.

whisper.cpp trusts its input, and the Python bindings do not check whether loading failed. A truncated file "loads";
other damage gives a null context and then a crash. So this module checks everything but the weights: header, mel
filters, vocabulary, and each tensor's name, shape, type and size up to the last byte. The weights are skipped, as only
a checksum can prove them.

Source of the format: `whisper_model_load` in whisper.cpp 1.8.5, and its models/convert-pt-to-ggml.py.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from transcriber.domain.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAGIC = b"lmgg"  # 0x67676d6c, little-endian
MAX_TOKEN_BYTES = 1024  # the longest token in both published vocabularies has 128
MAX_NAME_BYTES = 128  # the longest tensor name has 41
FFT_BINS = 201  # 400-point FFT at 16 kHz: whisper.cpp multiplies each spectrum by rows of exactly this length
BASE_TOKENS = 50_256  # GPT-2's byte pairs; the rest are special tokens, which whisper.cpp names itself
VERSION_FACTOR = 1000  # the header's ftype is 1000 x quantisation version + file type
NEWEST_QUANTISATION = 2  # GGML_QNT_VERSION of the ggml inside whisper.cpp 1.8.5

# whisper.cpp derives the ids of its special tokens and the number of languages from n_vocab. Below 51864 the ids point
# past the logits; above 51866 it looks up a language that it does not have. Whisper's largest model is 1280 wide and 32
# layers deep; up to twice that is accepted. It takes 30 s (1500 positions) and gives 448 tokens.
_ALLOWED: Mapping[str, Collection[int]] = {
    "n_vocab": (51_864, 51_865, 51_866),
    "n_audio_ctx": range(1, 1501),
    "n_audio_state": range(32, 2561),
    "n_audio_head": range(1, 41),
    "n_audio_layer": range(1, 65),
    "n_text_ctx": range(32, 449),
    "n_text_state": range(32, 2561),
    "n_text_head": range(1, 41),
    "n_text_layer": range(1, 65),
    "n_mels": (80, 128),
}


@dataclass(frozen=True, slots=True)
class _Type:
    """How ggml stores one type of weight: `block` weights in `size` bytes."""

    name: str
    id: int
    block: int
    size: int


# By file type (ggml_ftype). Ids and block layouts: ggml.h and ggml-common.h.
_F32, _F16 = _Type("f32", 0, 1, 4), _Type("f16", 1, 1, 2)
_TYPES: Mapping[int, _Type] = {
    0: _F32,
    1: _F16,
    2: _Type("q4_0", 2, 32, 18),
    3: _Type("q4_1", 3, 32, 20),
    7: _Type("q8_0", 8, 32, 34),
    8: _Type("q5_0", 6, 32, 22),
    9: _Type("q5_1", 7, 32, 24),
    10: _Type("q2_K", 10, 256, 84),
    11: _Type("q3_K", 11, 256, 110),
    12: _Type("q4_K", 12, 256, 144),
    13: _Type("q5_K", 13, 256, 176),
    14: _Type("q6_K", 14, 256, 210),
}
_SIZES = {(384, 4): "tiny", (512, 6): "base", (768, 12): "small", (1024, 24): "medium", (1280, 32): "large"}


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """A Whisper model's dimensions, in the order and under the names of the file."""

    n_vocab: int
    n_audio_ctx: int  # positions of 20 ms
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_text_ctx: int  # tokens
    n_text_state: int
    n_text_head: int
    n_text_layer: int
    n_mels: int
    ftype: int  # as in the file, quantisation version included

    @property
    def multilingual(self) -> bool:
        return self.n_vocab >= 51_865  # noqa: PLR2004 - whisper.cpp's own rule

    @property
    def size(self) -> str:
        """Tiny, base, small, medium, large (including turbo), or custom."""
        return _SIZES.get((self.n_audio_state, self.n_audio_layer), "custom")

    @property
    def weights(self) -> str:
        """The type of the large matrices: f32, f16 or a quantised type such as q5_0."""
        return _TYPES[self.ftype % VERSION_FACTOR].name


@dataclass(frozen=True, slots=True)
class Tensor:
    """The tensor that whisper.cpp expects under one name. `shape` has the contiguous dimension first."""

    shape: tuple[int, ...]
    type: _Type

    @property
    def nbytes(self) -> int:
        return prod(self.shape) // self.type.block * self.type.size

    def __str__(self) -> str:
        return f"{self.type.name} {list(self.shape)}"


def check_model_file(path: str | Path) -> ModelHeader:
    """Return the model's dimensions, if the file is complete and whisper.cpp can load it.

    Reads about 1 MB of a file of any size. Raises `ModelError` if the file is missing, unreadable or no ggml Whisper.
    So it does if the file is truncated or too long, or if a dimension or tensor is not that of a Whisper.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):  # opening a pipe would block
            raise ModelError(str(path), "is a directory, not a file" if S_ISDIR(status.st_mode) else "is not a file")
        with path.open("rb") as file:
            cursor = _Cursor(str(path), file, status.st_size)
            header = _read_header(cursor)
            _check_filters(cursor, header)
            _check_vocabulary(cursor, header)
            _check_tensors(cursor, header)
    except FileNotFoundError:
        raise ModelError(str(path), "no such file") from None
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror}") from error
    return header


def tensors(header: ModelHeader) -> dict[str, Tensor]:
    """All tensors of a Whisper of these dimensions by name: 11 + 15 per encoder layer + 24 per decoder layer.

    In the order of the official files, which is the order of OpenAI's checkpoints.
    """
    matrix = _TYPES[header.ftype % VERSION_FACTOR]
    conv = _F32 if matrix is _F32 else _F16  # convolutions are never quantised
    audio, text = header.n_audio_state, header.n_text_state
    found = {
        "decoder.positional_embedding": Tensor((text, header.n_text_ctx), _F32),
        "encoder.positional_embedding": Tensor((audio, header.n_audio_ctx), _F32),
        "decoder.token_embedding.weight": Tensor((text, header.n_vocab), matrix),
    }
    for layer in range(header.n_text_layer):
        found |= _block(f"decoder.blocks.{layer}", text, matrix, ("attn", "cross_attn"))
    found |= {
        **_linear("decoder.ln", (text,), text, _F32),
        "encoder.conv1.weight": Tensor((3, header.n_mels, audio), conv),
        "encoder.conv1.bias": Tensor((1, audio), _F32),
        "encoder.conv2.weight": Tensor((3, audio, audio), conv),
        "encoder.conv2.bias": Tensor((1, audio), _F32),
    }
    for layer in range(header.n_audio_layer):
        found |= _block(f"encoder.blocks.{layer}", audio, matrix, ("attn",))
    return found | _linear("encoder.ln_post", (audio,), audio, _F32)


def _block(prefix: str, width: int, matrix: _Type, attentions: tuple[str, ...]) -> dict[str, Tensor]:
    square = (width, width)
    found = _linear(f"{prefix}.mlp_ln", (width,), width, _F32)
    found |= _linear(f"{prefix}.mlp.0", (width, 4 * width), 4 * width, matrix)
    found |= _linear(f"{prefix}.mlp.2", (4 * width, width), width, matrix)
    for name in (f"{prefix}.{attention}" for attention in attentions):
        found |= _linear(f"{name}_ln", (width,), width, _F32)
        found |= _linear(f"{name}.query", square, width, matrix)
        found[f"{name}.key.weight"] = Tensor(square, matrix)  # the key has no bias
        for part in ("value", "out"):
            found |= _linear(f"{name}.{part}", square, width, matrix)
    return found


def _linear(name: str, shape: tuple[int, ...], outputs: int, weight: _Type) -> dict[str, Tensor]:
    return {f"{name}.weight": Tensor(shape, weight), f"{name}.bias": Tensor((outputs,), _F32)}


@dataclass(slots=True)
class _Cursor:
    """A position in the file, moved by reads and skips that never pass the end."""

    path: str
    file: BinaryIO
    size: int
    at: int = 0

    def fail(self, reason: str) -> NoReturn:
        raise ModelError(self.path, reason)

    def skip(self, count: int, what: str) -> None:
        self._claim(count, what)
        self.file.seek(self.at)

    def take(self, count: int, what: str) -> bytes:
        self._claim(count, what)
        data = self.file.read(count)
        if len(data) < count:
            self.fail(f"shrank while it was read: it had {self.size} bytes at first")
        return data

    def _claim(self, count: int, what: str) -> None:
        if self.at + count > self.size:
            self.fail(f"truncated: ends at byte {self.size}, but {what} goes on to byte {self.at + count}")
        self.at += count

    def ints(self, count: int, what: str) -> tuple[int, ...]:
        return struct.unpack(f"<{count}i", self.take(4 * count, what))


def _read_header(cursor: _Cursor) -> ModelHeader:
    magic = cursor.take(len(MAGIC), "the magic number")
    if magic != MAGIC:
        cursor.fail(f"is not a ggml Whisper file: it starts with {magic!r} instead of {MAGIC!r}")
    header = ModelHeader(*cursor.ints(len(fields(ModelHeader)), "the header"))
    for name, allowed in _ALLOWED.items():
        value = getattr(header, name)
        if value not in allowed:
            bounds = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else f"one of {allowed}"
            cursor.fail(f"header says {name}={value}, must be {bounds}")
    if header.n_text_state != header.n_audio_state:
        cursor.fail(f"header says n_text_state={header.n_text_state}, must be n_audio_state={header.n_audio_state}")
    for name in ("audio", "text"):
        state, heads = getattr(header, f"n_{name}_state"), getattr(header, f"n_{name}_head")
        if state % heads:
            cursor.fail(f"header says n_{name}_head={heads}, which does not divide n_{name}_state={state}")
    _check_ftype(cursor, header)
    return header


def _check_ftype(cursor: _Cursor, header: ModelHeader) -> None:
    version, ftype = divmod(header.ftype, VERSION_FACTOR)
    if ftype not in _TYPES or not 0 <= version <= NEWEST_QUANTISATION:
        known = ", ".join(f"{number} ({kind.name})" for number, kind in _TYPES.items())
        cursor.fail(f"header says ftype={header.ftype}, must be {known}, plus at most {NEWEST_QUANTISATION} x 1000")
    if header.n_audio_state % _TYPES[ftype].block:
        cursor.fail(f"{_TYPES[ftype].name} packs {_TYPES[ftype].block} weights, rows have {header.n_audio_state}")


def _check_filters(cursor: _Cursor, header: ModelHeader) -> None:
    shape = cursor.ints(2, "the mel filters")
    if shape != (header.n_mels, FFT_BINS):
        cursor.fail(f"mel filters are {shape[0]} x {shape[1]}, must be {header.n_mels} x {FFT_BINS}")
    cursor.skip(4 * prod(shape), "the mel filters")


def _check_vocabulary(cursor: _Cursor, header: ModelHeader) -> None:
    (count,) = cursor.ints(1, "the vocabulary")
    if not BASE_TOKENS <= count <= header.n_vocab:
        cursor.fail(f"vocabulary of {count} tokens, must be {BASE_TOKENS} to n_vocab={header.n_vocab}")
    for number in range(count):
        (length,) = cursor.ints(1, "the vocabulary")
        if not 0 <= length <= MAX_TOKEN_BYTES:
            cursor.fail(f"token {number} of the vocabulary has {length} bytes, must be 0 to {MAX_TOKEN_BYTES}")
        cursor.skip(length, "the vocabulary")


def _check_tensors(cursor: _Cursor, header: ModelHeader) -> None:
    missing = tensors(header)
    total = len(missing)
    for number in range(1, total + 1):
        start, head = cursor.at, f"the head of tensor {number} of {total}"
        dims, length, type_id = cursor.ints(3, head)
        if not (1 <= dims <= 3 and 1 <= length <= MAX_NAME_BYTES):  # noqa: PLR2004 - a convolution has 3
            cursor.fail(f"byte {start} is not {head}: it says {dims} dimensions and a name of {length} bytes")
        shape = cursor.ints(dims, head)
        name = cursor.take(length, head).decode(errors="replace")
        expected = missing.pop(name, None)
        if expected is None:
            cursor.fail(f"tensor {number} of {total}, {name!r}, is a double or unknown to a Whisper of this header")
        if (shape, type_id) != (expected.shape, expected.type.id):
            cursor.fail(f"tensor {name!r} has type {type_id} and shape {list(shape)}, must be {expected}")
        cursor.skip(expected.nbytes, f"tensor {name!r} ({number} of {total})")
    if cursor.at != cursor.size:
        cursor.fail(f"{cursor.size - cursor.at} bytes too many after the last tensor")
