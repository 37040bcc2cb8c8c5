"""Write a trained model for others to load: whisper.cpp's ggml format (f16), or OpenAI's checkpoint.

    python export.py WORK/model.pt ggml-dispatch-mini.bin
    python export.py ../ggml-dispatch-mini.bin dispatch-mini.pt    # for whisper.load_model("dispatch-mini.pt")

The ggml layout is that of whisper.cpp's models/convert-pt-to-ggml.py: hyperparameters, mel filters, tokens, tensors.
"""

from __future__ import annotations

import argparse
import base64
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
import whisper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[np.floating[Any]]]

MAGIC = 0x67676D6C
HALF = 1  # ggml's f16, for the file as for a tensor
HYPERPARAMETERS = (
    "n_vocab",
    "n_audio_ctx",
    "n_audio_state",
    "n_audio_head",
    "n_audio_layer",
    "n_text_ctx",
    "n_text_state",
    "n_text_head",
    "n_text_layer",
    "n_mels",
)
ASSETS = Path(whisper.__file__).parent / "assets"


def trained(path: Path) -> tuple[dict[str, int], Tensors]:
    """Hyperparameters and tensors of what train.py saved, with a whole embedding table."""
    saved = torch.load(path, weights_only=False)
    state = saved["trainee"]
    table = state["other"].repeat(saved["dims"]["n_vocab"], 1)
    table[torch.tensor(saved["used"])] = state["embedding"]
    tensors = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    tensors["decoder.token_embedding.weight"] = table
    return saved["dims"], {name: tensor.float().numpy() for name, tensor in tensors.items()}


def write_ggml(path: Path, dims: dict[str, int], tensors: Tensors) -> None:
    filters = np.load(ASSETS / "mel_filters.npz")[f"mel_{dims['n_mels']}"].astype(np.float32)
    lines = (ASSETS / "gpt2.tiktoken").read_bytes().splitlines()
    tokens = [base64.b64decode(line.split()[0]) for line in lines if line.strip()]
    with path.open("wb") as file:
        file.write(struct.pack("<12i", MAGIC, *(dims[name] for name in HYPERPARAMETERS), HALF))
        file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        file.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            file.write(struct.pack("<i", len(token)) + token)
        for name, tensor in tensors.items():
            _write_tensor(file, name, tensor)


def _write_tensor(file: BinaryIO, name: str, tensor: NDArray[np.floating[Any]]) -> None:
    x = tensor.reshape(-1, 1) if name in ("encoder.conv1.bias", "encoder.conv2.bias") else tensor
    half = x.ndim > 1 and not name.endswith(("bias", "positional_embedding"))
    key = name.encode()
    file.write(struct.pack("<3i", x.ndim, len(key), HALF if half else 0))
    file.write(struct.pack(f"<{x.ndim}i", *reversed(x.shape)) + key)
    file.write(np.ascontiguousarray(x, np.float16 if half else np.float32).tobytes())


def read_ggml(path: Path) -> tuple[dict[str, int], Tensors]:
    with path.open("rb") as file:

        def integers(count: int) -> tuple[int, ...]:
            return struct.unpack(f"<{count}i", file.read(4 * count))

        _, *values, _ = integers(12)
        rows, columns = integers(2)
        file.seek(4 * rows * columns, 1)
        for _ in range(*integers(1)):
            file.seek(integers(1)[0], 1)
        tensors: Tensors = {}
        while head := file.read(12):
            dimensions, length, half = struct.unpack("<3i", head)
            shape = integers(dimensions)[::-1]
            name = file.read(length).decode()
            dtype = np.dtype(np.float16 if half else np.float32)
            x = np.frombuffer(file.read(dtype.itemsize * int(np.prod(shape))), dtype).reshape(shape)
            tensors[name] = x[:, 0] if name in ("encoder.conv1.bias", "encoder.conv2.bias") else x
    return dict(zip(HYPERPARAMETERS, values, strict=True)), tensors


def write_checkpoint(path: Path, dims: dict[str, int], tensors: Tensors) -> None:
    state = {name: torch.from_numpy(x.astype(np.float32)) for name, x in tensors.items()}
    torch.save({"dims": dims, "model_state_dict": state}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a trained model for others to load.")
    parser.add_argument("source", type=Path, help="train.py's .pt, or a ggml .bin")
    parser.add_argument("target", type=Path, help="a ggml .bin, or OpenAI's .pt")
    options = parser.parse_args()
    dims, tensors = read_ggml(options.source) if options.source.suffix == ".bin" else trained(options.source)
    write = write_ggml if options.target.suffix == ".bin" else write_checkpoint
    write(options.target, dims, tensors)


if __name__ == "__main__":
    main()
