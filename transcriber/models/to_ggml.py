"""Converts the weights of a CTranslate2 Whisper to whisper.cpp's ggml f16 file: the published one, to the byte.

CTranslate2 joins an attention's query, key and value into one matrix, which ggml keeps apart. Everything else differs
only in name and place. Source of the names: CTranslate2's python/ctranslate2/converters/transformers.py.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import BinaryIO

import numpy as np

from transcriber.domain.errors import ModelError
from transcriber.models.byte_level import spelled
from transcriber.models.ct2_weights import Array, read_weights
from transcriber.models.ggml import BASE_TOKENS, FFT_BINS, MAGIC, ModelHeader, Tensor, tensors

F16 = 1  # ggml's file type, and its type of one tensor
MELS = 80  # of every Whisper except large-v3
TOKENS = BASE_TOKENS + 1  # official files also have the end-of-text token
_HEADER_BYTES = len(MAGIC) + 4 * 11

# Where CTranslate2 keeps a part of a block: the variable, the index of its share of the rows, and the number of shares.
_SHARES: Mapping[str, tuple[str, int, int]] = {
    "attn.query": ("self_attention/linear_0", 0, 3),
    "attn.key": ("self_attention/linear_0", 1, 3),
    "attn.value": ("self_attention/linear_0", 2, 3),
    "attn.out": ("self_attention/linear_1", 0, 1),
    "attn_ln": ("self_attention/layer_norm", 0, 1),
    "cross_attn.query": ("attention/linear_0", 0, 1),
    "cross_attn.key": ("attention/linear_1", 0, 2),
    "cross_attn.value": ("attention/linear_1", 1, 2),
    "cross_attn.out": ("attention/linear_2", 0, 1),
    "cross_attn_ln": ("attention/layer_norm", 0, 1),
    "mlp.0": ("ffn/linear_0", 0, 1),
    "mlp.2": ("ffn/linear_1", 0, 1),
    "mlp_ln": ("ffn/layer_norm", 0, 1),
}
_OUTSIDE = {"conv1": "conv1", "conv2": "conv2", "ln": "layer_norm", "ln_post": "layer_norm"}
_OUTSIDE |= {"token_embedding": "embeddings", "positional_embedding": "position_encodings/encodings"}


def convert(weights: Path, vocabulary: str, filters: bytes, target: Path) -> None:
    """Write `target` from a model.bin and its vocabulary: one token per line, bytes spelled in GPT-2's alphabet.

    `filters`: as `mel_filters` returns them. Holds one tensor at a time in memory. Raises `ModelError` if `weights` is
    no float16 Whisper of 80 mel bands, or its vocabulary is too short; and `OSError`.
    """
    found = read_weights(weights)
    names = vocabulary.split("\n")[:TOKENS]
    if len(names) < TOKENS:
        raise ModelError(str(weights), f"its vocabulary has {len(names)} tokens, must have {TOKENS}")
    try:
        header = header_of(found)
        if header.n_mels != MELS:
            raise ModelError(str(weights), f"has {header.n_mels} mel bands, must have {MELS}")
        with target.open("wb") as file:
            file.write(MAGIC + struct.pack("<11i", *astuple(header)) + filters + struct.pack("<i", TOKENS))
            for token in map(spelled, names):
                file.write(struct.pack("<i", len(token)) + token)
            for name, tensor in tensors(header).items():
                _write(file, name, tensor, _find(found, name))
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(str(weights), f"is not a Whisper that can be converted: {error}") from error


def mel_filters(model: Path) -> bytes:
    """Return the mel filters of a ggml model of 80 bands, with their shape, as in official files.

    Official files have +0 where later editions of OpenAI's table, and the bundled model, have -0. Raises `OSError`.
    """
    with model.open("rb") as file:
        file.seek(_HEADER_BYTES)
        shape, filters = file.read(4 * 2), file.read(4 * MELS * FFT_BINS)
    return shape + (np.frombuffer(filters, "<f4") + np.float32(0)).astype("<f4").tobytes()


def header_of(found: Mapping[str, Array]) -> ModelHeader:
    """Return the dimensions of a Whisper. Raises `KeyError` or `IndexError` if a variable is missing."""
    n_vocab, width = found["decoder/embeddings/weight"].shape
    positions = {side: len(found[f"{side}/position_encodings/encodings"]) for side in ("encoder", "decoder")}
    heads = {side: int(found[f"{side}/num_heads"]) for side in positions}
    layers = {
        side: len({k for k in found if re.fullmatch(rf"{side}/layer_\d+/ffn/linear_0/bias", k)}) for side in heads
    }
    audio = (positions["encoder"], width, heads["encoder"], layers["encoder"])
    text = (positions["decoder"], width, heads["decoder"], layers["decoder"])
    return ModelHeader(n_vocab, *audio, *text, found["encoder/conv1/weight"].shape[1], F16)


def _find(found: Mapping[str, Array], name: str) -> Array:
    """Return the weights of a ggml tensor, contiguous dimension last."""
    block = re.fullmatch(r"(encoder|decoder)\.blocks\.(\d+)\.(.+)\.(weight|bias)", name)
    if block is None:
        side, place, *leaf = name.split(".")
        path, share, shares = f"{side}/{_OUTSIDE[place]}", 0, 1
    else:
        side, layer, place, *leaf = block.groups()
        path, share, shares = _SHARES[place]
        path = f"{side}/layer_{layer}/{path}"
    for kind in leaf:
        path += f"/{kind}" if not path.endswith("layer_norm") else {"weight": "/gamma", "bias": "/beta"}[kind]
    data = found[path]
    if data.dtype != np.float16:
        raise ValueError(f"{path} is {data.dtype}, must be float16")
    if len(data) % shares:
        raise ValueError(f"{path} has {len(data)} rows, which are not {shares} equal shares")
    rows = len(data) // shares
    return data[share * rows : (share + 1) * rows]


def _write(file: BinaryIO, name: str, tensor: Tensor, data: Array) -> None:
    shape = tensor.shape[::-1]
    if [n for n in data.shape if n != 1] != [n for n in shape if n != 1]:
        raise ValueError(f"{name} has the shape {list(data.shape)}, must have {list(shape)}")
    file.write(struct.pack(f"<{3 + len(shape)}i", len(shape), len(name), tensor.type.id, *tensor.shape))
    file.write(name.encode())
    file.write(np.ascontiguousarray(data, "<f2" if tensor.type.id == F16 else "<f4").data)
