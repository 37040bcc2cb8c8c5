"""Writes a Whisper model of an official size with random weights, which costs as much as the official one.

It gives eleven words and stops. With plain random weights it would not stop. It would decode 224 tokens a window and
follow random timestamps, which is not the cost of real speech.
"""

from __future__ import annotations

import math
import struct
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from transcriber.models import store
from transcriber.models.ggml import MAGIC, ModelHeader, Tensor, check_model_file, tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Width, heads and layers of both encoder and decoder, from OpenAI's model card; f16 and the English vocabulary.
SIZES = {"tiny": (384, 6, 4), "base": (512, 8, 6), "small": (768, 12, 12)}
_HALF = 1  # ggml's f16, for a file and for a tensor
_HEADER_BYTES = 4 + 4 * 11  # the magic number and eleven integers
# As for a window of the bundled recording: the bundled model gives 7.9 tokens a window, 2.7 a second. An official one
# also gives a full stop and two timestamps.
_SAID = 11
_FIRST_WORD = 1000  # any token from here on is a plain word
_END_OF_TEXT = 50_256  # in the English vocabulary
# A token's logit is its embedding times the decoder's output. The output has unit variance and points at the embedding
# of the token to give. So that token's logit is _SPREAD x width, and others' are _SPREAD x sqrt(width) x a unit normal.
# At the smallest width, 384, that is 19 against at most 5 among 50,000 others. The sum of the 1501 timestamps is about
# 8.
_SPREAD = 0.05
_LOUD = 1000.0  # scale of the positions; what the layers add is of the order of one


def write_random(path: Path, size: str, seed: int = 0) -> None:
    """Write a ggml file of this size. All models have the bundled model's mel filters and vocabulary."""
    width, heads, layers = SIZES[size]
    bundled = store.bundled_model_path()
    like = check_model_file(bundled)
    audio, text = (like.n_audio_ctx, width, heads, layers), (like.n_text_ctx, width, heads, layers)
    header = ModelHeader(like.n_vocab, *audio, *text, like.n_mels, _HALF)
    random = np.random.default_rng(seed)
    embedding = random.standard_normal((header.n_vocab, width), np.float32) * _SPREAD
    with path.open("wb") as file:
        file.write(MAGIC + struct.pack("<11i", *astuple(header)))
        file.write(_filters_and_vocabulary(bundled))
        for name, tensor in tensors(header).items():
            _write(file, name, tensor, _values(name, tensor, embedding, random))


def _filters_and_vocabulary(path: Path) -> bytes:
    """The bytes of a ggml file between its header and its first tensor."""
    with path.open("rb") as file:

        def integers(count: int) -> tuple[int, ...]:
            return struct.unpack(f"<{count}i", file.read(4 * count))

        file.seek(_HEADER_BYTES)
        rows, columns = integers(2)
        file.seek(4 * rows * columns, 1)
        for _ in range(integers(1)[0]):
            file.seek(integers(1)[0], 1)
        end = file.tell()
        file.seek(_HEADER_BYTES)
        return file.read(end - _HEADER_BYTES)


def _values(
    name: str, tensor: Tensor, embedding: NDArray[np.float32], random: np.random.Generator
) -> NDArray[np.float32]:
    """Weights that keep the scale of their input. The decoder's positions determine the tokens."""
    shape = tensor.shape[::-1]
    if name == "decoder.token_embedding.weight":
        return embedding
    if name == "decoder.positional_embedding":
        said = [*range(_FIRST_WORD, _FIRST_WORD + _SAID), *[_END_OF_TEXT] * (shape[0] - _SAID)]
        return embedding[said] * _LOUD
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:  # the scale of a layer norm
        return np.ones(shape, np.float32)
    return random.standard_normal(shape, np.float32) / np.float32(math.sqrt(math.prod(shape[1:])))


def _write(file: BinaryIO, name: str, tensor: Tensor, values: NDArray[np.float32]) -> None:
    key = name.encode()
    file.write(struct.pack("<3i", len(tensor.shape), len(key), tensor.type.id))
    file.write(struct.pack(f"<{len(tensor.shape)}i", *tensor.shape) + key)
    file.write(values.astype(np.float16 if tensor.type.id == _HALF else np.float32).tobytes())
