"""Small Whispers made on the spot: CTranslate2's file with random weights, and a reader of ggml files of its own."""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path

import numpy as np

from transcriber.models.store import bundled_model_path

N_VOCAB, WIDTH, HEADS, AUDIO, TEXT, MELS = 51_864, 32, 2, 12, 34, 80
ENCODER_LAYERS, DECODER_LAYERS = 2, 1
TYPES = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}
HEAD_BYTES = 48 + 8 + 4 * MELS * 201  # header and filters, which the vocabulary follows


def weights(seed: int = 1) -> dict[str, np.ndarray]:
    """The variables of a Whisper of this shape, under CTranslate2's names."""
    chance = np.random.default_rng(seed)

    def half(*shape: int) -> np.ndarray:
        return chance.standard_normal(shape, np.float32).astype(np.float16)

    found: dict[str, np.ndarray] = {"decoder/activation": np.int8(3)}
    for side, positions, layers in (("encoder", AUDIO, ENCODER_LAYERS), ("decoder", TEXT, DECODER_LAYERS)):
        found[f"{side}/num_heads"] = np.int16(HEADS)
        found[f"{side}/position_encodings/encodings"] = half(positions, WIDTH)
        norms, linears = [f"{side}/layer_norm"], []
        for layer in (f"{side}/layer_{number}" for number in range(layers)):
            norms += [f"{layer}/self_attention/layer_norm", f"{layer}/ffn/layer_norm"]
            linears += [(f"{layer}/self_attention/linear_0", 3 * WIDTH, WIDTH)]
            linears += [(f"{layer}/self_attention/linear_1", WIDTH, WIDTH)]
            linears += [(f"{layer}/ffn/linear_0", 4 * WIDTH, WIDTH), (f"{layer}/ffn/linear_1", WIDTH, 4 * WIDTH)]
            if side == "decoder":
                norms += [f"{layer}/attention/layer_norm"]
                linears += [(f"{layer}/attention/linear_{n}", rows * WIDTH, WIDTH) for n, rows in enumerate((1, 2, 1))]
        for name in norms:
            found |= {f"{name}/gamma": half(WIDTH), f"{name}/beta": half(WIDTH)}
        for name, rows, columns in linears:
            found |= {f"{name}/weight": half(rows, columns), f"{name}/bias": half(rows)}
    found["encoder/conv1/weight"], found["encoder/conv1/bias"] = half(WIDTH, MELS, 3), half(WIDTH)
    found["encoder/conv2/weight"], found["encoder/conv2/bias"] = half(WIDTH, WIDTH, 3), half(WIDTH)
    found["decoder/embeddings/weight"] = half(N_VOCAB, WIDTH)
    return found


def model_bin(variables: dict[str, np.ndarray], *, version: int = 6, spec: str = "WhisperSpec") -> bytes:
    """CTranslate2's file, with the alias that its converter makes."""

    def text(word: str) -> bytes:
        return struct.pack("<H", len(word) + 1) + word.encode() + b"\0"

    parts = [struct.pack("<I", version), text(spec), struct.pack("<2I", 3, len(variables))]
    for name, data in sorted(variables.items()):
        head = struct.pack(f"<B{data.ndim}I", data.ndim, *data.shape)
        parts += [text(name), head, struct.pack("<BI", TYPES[data.dtype.name], data.nbytes), data.tobytes()]
    alias = text("decoder/projection/weight") + text("decoder/embeddings/weight")
    return b"".join([*parts, struct.pack("<I", 1), alias])


def letters() -> dict[int, str]:
    """GPT-2's spelling of each byte, after OpenAI's bytes_to_unicode."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in own]
    return dict(zip(own + rest, [chr(byte) for byte in own] + [chr(256 + n) for n in range(len(rest))], strict=True))


def vocabulary() -> str:
    """vocabulary.txt of an English model: the bundled model's tokens, and two of the special ones."""
    spelling = letters()
    tokens = ["".join(spelling[byte] for byte in token) for token in read_ggml(bundled_model_path())[1]]
    return "\n".join([*tokens, "<|endoftext|>", "<|startoftranscript|>", ""])


def read_ggml(path: Path) -> tuple[bytes, list[bytes], dict[str, np.ndarray]]:
    """Header and filters, the tokens, and the tensors of a file of f32 and f16 ones."""
    data = path.read_bytes()
    (count,) = struct.unpack_from("<i", data, HEAD_BYTES)
    at, tokens, tensors = HEAD_BYTES + 4, [], {}
    for _ in range(count):
        (length,) = struct.unpack_from("<i", data, at)
        tokens.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    while at < len(data):
        dims, length, half = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{dims}i", data, at + 12)[::-1]
        at += 12 + 4 * dims
        name, kind = data[at : at + length].decode(), np.dtype(np.float16 if half else np.float32)
        tensors[name] = np.frombuffer(data, kind, prod(shape), at + length).reshape(shape)
        at += length + prod(shape) * kind.itemsize
    return data[:HEAD_BYTES], tokens, tensors
