"""Converts a ggml Whisper to a folder for CTranslate2, equal to the official converter's from the same weights.

Source of the variables: `WhisperSpec` in CTranslate2's python/ctranslate2/specs/whisper_spec.py. A ggml file lacks two
things. The merges of byte pairs follow from the order of the tokens. The decoder's heads that follow the audio are in a
table, OpenAI's `_ALIGNMENT_HEADS` in whisper/__init__.py.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from transcriber.domain import languages
from transcriber.domain.errors import ModelError
from transcriber.models.byte_level import spell
from transcriber.models.ct2_folder import CONFIG, TOKENIZER, WEIGHTS
from transcriber.models.ct2_weights import DTYPES, SPEC, VERSION, Array
from transcriber.models.ggml import FFT_BINS, MAGIC, ModelHeader, check_model_file

CONVERTIBLE = ("f16", "f32")  # types of weights
_REVISION = 3  # of the specification
_GELU = 3  # CTranslate2's number of this activation
_TIMES = 1501  # timestamps, from 0.00 to 30.00 s
_MOST_LANGUAGES = 51_866  # tokens in a vocabulary with Cantonese, which large-v3 added
_TASKS = ("translate", "transcribe", "startoflm", "startofprev", "nocaptions", "notimestamps")

# Pairs of layer and head, by width, decoder layers and vocabulary (51,864 tokens: English only). Of the large models,
# version 3 has its own vocabulary. Version 1 is taken for version 2, which has the same shape.
_HEADS: Mapping[tuple[int, int, int], str] = {
    (384, 4, 51_864): "1,0 2,0 2,5 3,0 3,1 3,2 3,3 3,4",
    (384, 4, 51_865): "2,2 3,0 3,2 3,3 3,4 3,5",
    (512, 6, 51_864): "3,3 4,7 5,1 5,5 5,7",
    (512, 6, 51_865): "3,1 4,2 4,3 4,7 5,1 5,2 5,4 5,6",
    (768, 12, 51_864): "6,6 7,0 7,3 7,8 8,2 8,5 8,7 9,0 9,4 9,8 9,10 10,0 10,1 10,2 10,3 10,6 10,11 11,2 11,4",
    (768, 12, 51_865): "5,3 5,9 8,0 8,4 8,7 8,8 9,0 9,7 9,9 10,5",
    (1024, 24, 51_864): "11,4 14,1 14,12 14,14 15,4 16,0 16,4 16,9 17,12 17,14 18,7 18,10 18,15 20,0 20,3 20,9 20,14 "
    "21,12",
    (1024, 24, 51_865): "13,15 15,4 15,15 16,1 20,0 23,4",
    (1280, 32, 51_865): "10,12 13,17 16,11 16,12 16,13 17,15 17,16 18,4 18,11 18,19 19,11 21,2 21,3 22,3 22,9 22,12 "
    "23,5 23,7 23,13 25,5 26,1 26,12 27,15",
    (1280, 32, 51_866): "7,0 10,17 12,18 13,12 16,1 17,14 19,11 21,4 24,1 25,6",
    (1280, 4, 51_866): "2,4 2,11 3,3 3,6 3,11 3,14",
}


def convert(model: Path, target: Path) -> None:
    """Fill the existing folder `target`. Raises `ModelError` if `model` is no ggml Whisper with float weights."""
    header, tokens, tensors = _contents(model)
    names = [*map(spell, tokens), *_specials(header, len(tokens))]
    (target / "vocabulary.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
    (target / TOKENIZER).write_text(json.dumps(_tokenizer(names, tokens), ensure_ascii=False), "utf-8")
    (target / CONFIG).write_text(json.dumps(_config(header, names)), "utf-8")
    with (target / WEIGHTS).open("wb") as file:
        _write_weights(file, header, tensors)


def _config(header: ModelHeader, names: list[str]) -> dict[str, object]:
    """The configuration. Names of sounds are not suppressed, or Whisper would make up words in their place."""
    heads = [[int(n) for n in pair.split(",")] for pair in _HEADS.get(_shape(header), "").split()]
    start, end = names.index("<|startoftranscript|>"), names.index("<|translate|>")
    return {
        "alignment_heads": heads or _upper_half(header),
        "lang_ids": list(range(start + 1, end)),
        "suppress_ids": [],
        "suppress_ids_begin": [names.index(spell(b" ")), names.index("<|endoftext|>")],
    }


def _shape(header: ModelHeader) -> tuple[int, int, int]:
    return header.n_text_state, header.n_text_layer, header.n_vocab


def _upper_half(header: ModelHeader) -> list[list[int]]:
    """The default of CTranslate2 and OpenAI for other models: all heads of the upper layers."""
    layers = range(header.n_text_layer // 2, header.n_text_layer)
    return [[layer, head] for layer in layers for head in range(header.n_text_head)]


def _contents(model: Path) -> tuple[ModelHeader, list[bytes], dict[str, Array]]:
    """Return a file's header, tokens and tensors. Tensors are views of it, contiguous dimension last."""
    header = check_model_file(model)
    if header.weights not in CONVERTIBLE:
        raise ModelError(str(model), f"has weights of {header.weights}, must have f16 or f32 to be converted")
    data = np.memmap(model, np.uint8, "r")
    at = len(MAGIC) + 4 * 11 + 4 * 2 + 4 * header.n_mels * FFT_BINS

    def ints(count: int) -> tuple[int, ...]:
        nonlocal at
        at += 4 * count
        return struct.unpack(f"<{count}i", data[at - 4 * count : at].tobytes())

    def take(count: int) -> Array:
        nonlocal at
        at += count
        return data[at - count : at]

    tokens = [take(ints(1)[0]).tobytes() for _ in range(ints(1)[0])]
    tensors: dict[str, Array] = {}
    while at < len(data):
        dims, length, kind = ints(3)
        shape = ints(dims)[::-1]
        name = take(length).tobytes().decode()
        dtype = np.dtype("<f2" if kind else "<f4")
        tensors[name] = take(prod(shape) * dtype.itemsize).view(dtype).reshape(shape)
    return header, tokens, tensors


def _specials(header: ModelHeader, base: int) -> list[str]:
    """The names of the tokens after the `base` ones in a ggml file, as other conversions name them."""
    known = languages.WHISPER_ORDER if header.n_vocab >= _MOST_LANGUAGES else languages.WHISPER_ORDER[:-1]
    names = ["endoftext", "startoftranscript", *known, *_TASKS]
    names += [f"{step / 50:.2f}" for step in range(_TIMES)]
    return [f"<|{name}|>" for name in names][len(names) - header.n_vocab + base :]


def _tokenizer(names: list[str], tokens: list[bytes]) -> dict[str, object]:
    """The file that the library `tokenizers` needs to split a prompt."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges = [pair for token in tokens if len(token) > 1 and (pair := _merge(token, ranks))]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    specials = [
        {"id": number, "content": name, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for number, name in enumerate(names)
        if number >= len(tokens)
    ]
    return {
        "version": "1.0",
        "added_tokens": specials,
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {name: number for number, name in enumerate(names[: len(tokens)]) if name},
            "merges": merges,
        },
    }


def _merge(token: bytes, ranks: Mapping[bytes, int]) -> str | None:
    """The two parts that byte pair encoding joins last to make the token; None if it never makes it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:  # noqa: PLR2004 - the two
        found = [(rank, i) for i in range(len(parts) - 1) if (rank := ranks.get(parts[i] + parts[i + 1])) is not None]
        if not found or min(found)[0] >= ranks[token]:
            return None
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return " ".join(map(spell, parts))


def _write_weights(file: BinaryIO, header: ModelHeader, tensors: Mapping[str, Array]) -> None:
    variables = dict(_variables(header, tensors))
    file.write(struct.pack("<I", VERSION) + _text(SPEC) + struct.pack("<II", _REVISION, len(variables)))
    for name, data in sorted(variables.items()):
        kind = next(number for number, dtype in DTYPES.items() if np.dtype(dtype) == data.dtype)
        shape = struct.pack(f"<B{data.ndim}I", data.ndim, *data.shape)
        file.write(_text(name) + shape + struct.pack("<BI", kind, data.nbytes))
        file.write(np.ascontiguousarray(data).data if data.ndim else data.tobytes())
    file.write(struct.pack("<I", 1) + _text("decoder/projection/weight") + _text("decoder/embeddings/weight"))


def _text(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def _variables(header: ModelHeader, tensors: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    yield "decoder/embeddings/weight", _half(tensors["decoder.token_embedding.weight"])
    yield from _flags(header)
    for side, ending in (("encoder", "ln_post"), ("decoder", "ln")):
        yield f"{side}/position_encodings/encodings", _half(tensors[f"{side}.positional_embedding"])
        yield from _norm(f"{side}/layer_norm", tensors, f"{side}.{ending}")
    for conv in ("conv1", "conv2"):
        yield f"encoder/{conv}/weight", _half(tensors[f"encoder.{conv}.weight"])
        yield f"encoder/{conv}/bias", _half(tensors[f"encoder.{conv}.bias"]).reshape(-1)
    for side, layers in (("encoder", header.n_audio_layer), ("decoder", header.n_text_layer)):
        for layer in range(layers):
            yield from _layer(f"{side}/layer_{layer}", tensors, f"{side}.blocks.{layer}")


def _flags(header: ModelHeader) -> Iterator[tuple[str, Array]]:
    numbers = {"activation": _GELU, "alibi": 0, "pre_norm": 1, "scale_embeddings": 0, "start_from_zero_embedding": 0}
    for name, number in numbers.items():
        yield f"decoder/{name}", np.array(number, np.int8)
    wide = {"alignment_heads": 1, "alignment_layer": -1, "num_heads": header.n_text_head}
    for name, number in wide.items():
        yield f"decoder/{name}", np.array(number, np.int16)
    yield "encoder/num_heads", np.array(header.n_audio_head, np.int16)


def _layer(name: str, tensors: Mapping[str, Array], block: str) -> Iterator[tuple[str, Array]]:
    yield from _norm(f"{name}/self_attention/layer_norm", tensors, f"{block}.attn_ln")
    yield from _linear(
        f"{name}/self_attention/linear_0", tensors, *(f"{block}.attn.{p}" for p in ("query", "key", "value"))
    )
    yield from _linear(f"{name}/self_attention/linear_1", tensors, f"{block}.attn.out")
    if f"{block}.cross_attn.query.weight" in tensors:
        yield from _norm(f"{name}/attention/layer_norm", tensors, f"{block}.cross_attn_ln")
        yield from _linear(f"{name}/attention/linear_0", tensors, f"{block}.cross_attn.query")
        yield from _linear(
            f"{name}/attention/linear_1", tensors, *(f"{block}.cross_attn.{p}" for p in ("key", "value"))
        )
        yield from _linear(f"{name}/attention/linear_2", tensors, f"{block}.cross_attn.out")
    yield from _norm(f"{name}/ffn/layer_norm", tensors, f"{block}.mlp_ln")
    yield from _linear(f"{name}/ffn/linear_0", tensors, f"{block}.mlp.0")
    yield from _linear(f"{name}/ffn/linear_1", tensors, f"{block}.mlp.2")


def _linear(name: str, tensors: Mapping[str, Array], *parts: str) -> Iterator[tuple[str, Array]]:
    """Stack one or more matrices of ggml's into one. A part without a bias, the key, gets zeros."""
    weights = [_half(tensors[f"{part}.weight"]) for part in parts]
    biases = [tensors.get(f"{part}.bias", np.zeros(len(w))) for part, w in zip(parts, weights, strict=True)]
    yield f"{name}/weight", np.concatenate(weights)
    yield f"{name}/bias", _half(np.concatenate(biases))


def _norm(name: str, tensors: Mapping[str, Array], norm: str) -> Iterator[tuple[str, Array]]:
    yield f"{name}/gamma", _half(tensors[f"{norm}.weight"])
    yield f"{name}/beta", _half(tensors[f"{norm}.bias"])


def _half(data: Array) -> Array:
    return data.astype("<f2")
