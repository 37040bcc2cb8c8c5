"""The file check against the real bundled model, damaged in many ways."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
from dataclasses import astuple, fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import ROOT

from transcriber.domain.errors import ModelError
from transcriber.models.ggml import ModelHeader, check_model_file, tensors
from transcriber.models.store import MODELS

MODEL = ROOT / "models" / "ggml-dispatch-mini.bin"
HEADER = ModelHeader(
    n_vocab=51864,
    n_audio_ctx=1500,
    n_audio_state=128,
    n_audio_head=2,
    n_audio_layer=4,
    n_text_ctx=448,
    n_text_state=128,
    n_text_head=2,
    n_text_layer=3,
    n_mels=80,
    ftype=1,
)
FIELDS = [field.name for field in fields(ModelHeader)]
HEADER_BYTES = 4 + 4 * len(FIELDS)
FILTERS_BYTES = 8 + 4 * 80 * 201
SIZE = MODEL.stat().st_size
FTYPES = {0: "f32", 1: "f16", 2002: "q4_0", 2003: "q4_1", 2008: "q5_0", 2009: "q5_1", 2007: "q8_0"} | {
    2010 + n: f"q{2 + n}_K" for n in range(5)
}
LARGE_V3 = ModelHeader(
    n_vocab=51866,
    n_audio_ctx=1500,
    n_audio_state=1280,
    n_audio_head=20,
    n_audio_layer=32,
    n_text_ctx=448,
    n_text_state=1280,
    n_text_head=20,
    n_text_layer=32,
    n_mels=128,
    ftype=1,
)

# OpenAI's table of sizes (width, heads, encoder and decoder layers): https://github.com/openai/whisper, model card.
SHAPES = {
    "tiny": (384, 6, 4, 4),
    "base": (512, 8, 6, 6),
    "small": (768, 12, 12, 12),
    "medium": (1024, 16, 24, 24),
    "large-v1": (1280, 20, 32, 32),
    "large-v2": (1280, 20, 32, 32),
    "large-v3": (1280, 20, 32, 32),
    "large-v3-turbo": (1280, 20, 32, 4),
}
OFFICIAL = [model for model in MODELS.values() if not model.bundled]


def vocabulary() -> bytes:
    """The bundled model's vocabulary block: count, then length and bytes of each token."""
    data = MODEL.read_bytes()
    start = at = HEADER_BYTES + FILTERS_BYTES
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    for _ in range(count):
        at += 4 + struct.unpack_from("<i", data, at)[0]
    return data[start:at]


VOCABULARY = vocabulary()


def write_model(path: Path, header: ModelHeader) -> None:
    """A model of these dimensions whose weights and filters are holes in the file, so that 3 GB cost no disk."""
    with path.open("wb") as file:
        file.write(struct.pack("<12i", 0x67676D6C, *astuple(header)))
        file.write(struct.pack("<2i", header.n_mels, 201))
        file.seek(4 * header.n_mels * 201, os.SEEK_CUR)
        file.write(VOCABULARY)
        for name, tensor in tensors(header).items():
            key = name.encode()
            file.write(
                struct.pack(f"<{3 + len(tensor.shape)}i", len(tensor.shape), len(key), tensor.type.id, *tensor.shape)
            )
            file.write(key)
            file.seek(tensor.nbytes, os.SEEK_CUR)
        file.truncate(file.tell())


def tensor_head_positions() -> list[int]:
    """Where the bundled model's tensor heads are, byte by byte, found without the code under test."""
    data = MODEL.read_bytes()
    found, at = [], HEADER_BYTES + FILTERS_BYTES + len(VOCABULARY)
    while at < len(data):
        dims, length, half = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{dims}i", data, at + 12)
        head = 12 + 4 * dims + length
        found += range(at, at + head)
        weights = 1
        for extent in shape:
            weights *= extent
        at += head + weights * (2 if half else 4)
    return found


HEAD_POSITIONS = tensor_head_positions()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copy(MODEL, tmp_path / "model.bin"))


def poke(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def complaint(path: Path) -> str:
    """The check's error about a bad file, which names the file."""
    with pytest.raises(ModelError) as caught:
        check_model_file(path)
    assert caught.value.path == str(path)
    assert str(caught.value) == f"model {path}: {caught.value.reason}"
    return caught.value.reason


def test_bundled_model_passes_and_its_header_is_read():
    """The shipped model is complete, and its dimensions come out."""
    header = check_model_file(MODEL)
    assert header == HEADER
    assert (header.multilingual, header.size, header.weights) == (False, "custom", "f16")


def test_schema_holds_exactly_the_tensors_of_the_bundled_model():
    """A Whisper has 11 tensors, 15 more per encoder layer and 24 more per decoder layer."""
    assert len(tensors(HEADER)) == 11 + 15 * 4 + 24 * 3
    assert len(tensors(LARGE_V3)) == 11 + 15 * 32 + 24 * 32


@pytest.mark.parametrize("model", OFFICIAL, ids=[model.name for model in OFFICIAL])
def test_published_size_fits_the_file_format_to_the_byte(model):
    """Size minus all tensors, header and filters leaves the vocabulary, the same in all of a kind."""
    base, _, quantised = model.name.partition("-q")
    width, heads, audio_layers, text_layers = SHAPES[base.removesuffix(".en")]
    english, third = base.endswith(".en"), "v3" in base
    n_vocab, n_mels = 51864 if english else 51865 + third, 128 if third else 80
    ftype = next(number for number, name in FTYPES.items() if name == (f"q{quantised}" if quantised else "f16"))
    header = ModelHeader(
        n_vocab=n_vocab,
        n_audio_ctx=1500,
        n_audio_state=width,
        n_audio_head=heads,
        n_audio_layer=audio_layers,
        n_text_ctx=448,
        n_text_state=width,
        n_text_head=heads,
        n_text_layer=text_layers,
        n_mels=n_mels,
        ftype=ftype,
    )
    records = sum(12 + 4 * len(tensor.shape) + len(name) + tensor.nbytes for name, tensor in tensors(header).items())
    # 50257 tokens: 50256 byte pairs and, in English models, the word "<|endoftext|>"
    vocabulary = 521_859 if english else 508_089
    assert model.size == 48 + 8 + 4 * n_mels * 201 + vocabulary + records


@pytest.mark.parametrize(("ftype", "weights"), FTYPES.items())
def test_every_weight_type_is_walked_to_the_last_byte(tmp_path, ftype, weights):
    """A file of each type that ggml stores passes whole, and fails when one byte is missing or added."""
    path = tmp_path / "model.bin"
    header = ModelHeader(
        n_vocab=51865,
        n_audio_ctx=1500,
        n_audio_state=256,
        n_audio_head=4,
        n_audio_layer=1,
        n_text_ctx=448,
        n_text_state=256,
        n_text_head=4,
        n_text_layer=1,
        n_mels=80,
        ftype=ftype,
    )
    write_model(path, header)
    size = path.stat().st_size
    assert check_model_file(path) == header
    assert (header.weights, header.multilingual) == (weights, True)
    os.truncate(path, size + 1)
    assert complaint(path) == "1 bytes too many after the last tensor"
    os.truncate(path, size - 1)
    assert f"truncated: ends at byte {size - 1}" in complaint(path)


@pytest.mark.timeout(10)
def test_largest_model_is_checked_without_reading_its_weights(tmp_path):
    """A file of large-v3's 3 GB is walked in a moment."""
    path = tmp_path / "ggml-large-v3.bin"
    write_model(path, LARGE_V3)
    assert path.stat().st_size > 3_090_000_000
    header = check_model_file(path)
    assert (header, header.size) == (LARGE_V3, "large")


def test_truncation_anywhere_is_found(copy):
    """A file cut at any length, down to nothing, is refused. The error says where it ends."""
    chance = random.Random(2)
    cuts = {0, 1, 3, 4, 47, 48, 55, 56, SIZE - 1, HEAD_POSITIONS[0], HEAD_POSITIONS[0] + 5, HEAD_POSITIONS[-1]}
    cuts |= {chance.randrange(SIZE) for _ in range(30)} | {chance.randrange(HEAD_POSITIONS[0]) for _ in range(15)}
    for cut in sorted(cuts, reverse=True):
        os.truncate(copy, cut)
        assert re.match(rf"truncated: ends at byte {cut}, but .+ goes on to byte \d+$", complaint(copy))


@pytest.mark.parametrize("garbage", [1, 12, 1000])
def test_bytes_after_the_last_tensor_are_found(copy, garbage):
    """A file with bytes after its last tensor is not the published file."""
    poke(copy, SIZE, random.Random(3).randbytes(garbage))
    assert complaint(copy) == f"{garbage} bytes too many after the last tensor"


@pytest.mark.parametrize("keep", [0, 4, HEADER_BYTES, HEADER_BYTES + FILTERS_BYTES, HEAD_POSITIONS[0]])
@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused(copy, keep, seed):
    """Noise in place of the file, or after any honest beginning of it, is refused."""
    chance = random.Random(seed)
    for at in range(keep, SIZE, 1 << 20):
        poke(copy, at, chance.randbytes(min(1 << 20, SIZE - at)))
    assert complaint(copy)


@given(data=st.binary(max_size=4096), magic=st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_short_file_is_refused(tmp_path, data, magic):
    """No short string of bytes is taken for a model, and none raises anything but ModelError."""
    path = tmp_path / "model.bin"
    path.write_bytes((b"lmgg" if magic else b"") + data)
    assert complaint(path)


@pytest.mark.parametrize("field", FIELDS)
def test_wrong_header_field_is_refused(copy, field):
    """Each dimension is held against its range, against the others, and against the tensors."""
    true = getattr(HEADER, field)
    for wrong in (-(2**31), -1, 0, true + 1, true * 3, 2**20, 2**31 - 1):
        poke(copy, 4 + 4 * FIELDS.index(field), struct.pack("<i", wrong))
        reason = complaint(copy)
        assert f"{field}={wrong}" in reason or "tensor" in reason or "mel filters" in reason


def test_refusal_of_a_header_says_what_is_allowed(copy):
    """The error names the field, its value and the values it may have."""
    poke(copy, 4, struct.pack("<i", 1000))
    assert complaint(copy) == "header says n_vocab=1000, must be one of (51864, 51865, 51866)"
    poke(copy, 4, struct.pack("<2i", 51864, 30_000))
    assert complaint(copy) == "header says n_audio_ctx=30000, must be 1 to 1500"


def test_quantised_rows_must_be_whole_blocks(tmp_path):
    """A type that packs 256 weights cannot hold rows of 128. ggml would read past their end."""
    path = tmp_path / "model.bin"
    write_model(path, replace(HEADER, ftype=2012))
    assert complaint(path) == "q4_K packs 256 weights, rows have 128"


@given(position=st.sampled_from(HEAD_POSITIONS), change=st.integers(1, 255))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_in_a_tensor_head_is_found(tmp_path, position, change):
    """Dimensions, type and name of every tensor are checked to the last bit."""
    path = tmp_path / "model.bin"
    if not path.exists():
        shutil.copy(MODEL, path)
    with path.open("r+b") as file:
        file.seek(position)
        true = file.read(1)
    poke(path, position, bytes([true[0] ^ change]))
    try:
        assert complaint(path)
    finally:
        poke(path, position, true)


def test_doubled_tensor_is_found(copy):
    """The count is right, but a tensor that comes twice means that another is missing."""
    name = b"decoder.blocks.1.attn.key.weight"
    poke(copy, MODEL.read_bytes().index(name), name.replace(b"1", b"0"))
    assert "'decoder.blocks.0.attn.key.weight', is a double or unknown" in complaint(copy)


@pytest.mark.parametrize("length", [-1, 1025, 2**31 - 1])
def test_silly_token_length_is_refused(copy, length):
    """A token length that would make whisper.cpp allocate gigabytes is refused."""
    poke(copy, HEADER_BYTES + FILTERS_BYTES + 4, struct.pack("<i", length))
    assert complaint(copy) == f"token 0 of the vocabulary has {length} bytes, must be 0 to 1024"


def test_other_format_is_named_by_its_first_bytes(tmp_path):
    """A GGUF file is a frequent mistake. The error shows the first bytes of the file."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    assert complaint(path) == "is not a ggml Whisper file: it starts with b'GGUF' instead of b'lmgg'"


def test_missing_and_special_files_are_refused(tmp_path):
    """A missing path, a directory, a path below a file, a pipe without a writer: each has its error, and none hangs."""
    assert complaint(tmp_path / "none.bin") == "no such file"
    assert complaint(tmp_path) == "is a directory, not a file"
    assert complaint(MODEL / "below") == "cannot be read: Not a directory"
    os.mkfifo(tmp_path / "pipe")
    assert complaint(tmp_path / "pipe") == "is not a file"
