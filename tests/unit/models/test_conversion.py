"""From CTranslate2's model.bin to ggml, value by value, and what cannot be converted."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
import whispers

from transcriber.domain.errors import ModelError
from transcriber.models.ggml import ModelHeader, check_model_file
from transcriber.models.store import bundled_model_path
from transcriber.models.to_ggml import convert, mel_filters

FILTERS = mel_filters(bundled_model_path())
WEIGHTS = whispers.weights()
VOCABULARY = whispers.vocabulary()
WIDTH = whispers.WIDTH


def converted(folder: Path, data: bytes, vocabulary: str = VOCABULARY) -> Path:
    source, target = folder / "model.bin", folder / "ggml.bin"
    source.write_bytes(data)
    convert(source, vocabulary, FILTERS, target)
    return target


def complaint(folder: Path, data: bytes, vocabulary: str = VOCABULARY) -> str:
    with pytest.raises(ModelError) as caught:
        converted(folder, data, vocabulary)
    assert caught.value.path == str(folder / "model.bin")
    return caught.value.reason


def test_converted_file_is_a_whole_model_of_the_same_dimensions(tmp_path):
    """whisper.cpp could load it. Filters and tokens are the bundled model's, which ends one token earlier."""
    path = converted(tmp_path, whispers.model_bin(WEIGHTS))
    expected = ModelHeader(
        n_vocab=51_864,
        n_audio_ctx=whispers.AUDIO,
        n_audio_state=WIDTH,
        n_audio_head=2,
        n_audio_layer=2,
        n_text_ctx=whispers.TEXT,
        n_text_state=WIDTH,
        n_text_head=2,
        n_text_layer=1,
        n_mels=80,
        ftype=1,
    )
    assert check_model_file(path) == expected
    head, tokens, _ = whispers.read_ggml(path)
    bundled_head, bundled_tokens, _ = whispers.read_ggml(bundled_model_path())
    filters, bundled_filters = (np.frombuffer(data, "<f4", offset=56) for data in (head, bundled_head))
    assert np.array_equal(filters, bundled_filters)
    assert not np.signbit(filters).any()  # official files have no -0, which the bundled model has
    assert tokens == [*bundled_tokens, b"<|endoftext|>"]


def test_every_value_is_where_it_belongs(tmp_path):
    """Each tensor holds the weights of its variable, bit by bit. Small ones are float32."""
    w = WEIGHTS
    _, _, found = whispers.read_ggml(converted(tmp_path, whispers.model_bin(w)))
    expected = {}

    def take(name, variable, rows=slice(None), kinds=("weight", "bias")):
        for kind in kinds:
            expected[f"{name}.{kind}"] = w[f"{variable}/{kind}"][rows]

    def norm(name, variable):
        expected.update({f"{name}.weight": w[f"{variable}/gamma"], f"{name}.bias": w[f"{variable}/beta"]})

    first, second, third = (slice(n * WIDTH, (n + 1) * WIDTH) for n in range(3))
    for side, layers in (("encoder", 2), ("decoder", 1)):
        expected[f"{side}.positional_embedding"] = w[f"{side}/position_encodings/encodings"]
        for layer in range(layers):
            to, of = f"{side}.blocks.{layer}", f"{side}/layer_{layer}"
            take(f"{to}.attn.query", f"{of}/self_attention/linear_0", first)
            take(f"{to}.attn.key", f"{of}/self_attention/linear_0", second, ["weight"])
            take(f"{to}.attn.value", f"{of}/self_attention/linear_0", third)
            take(f"{to}.attn.out", f"{of}/self_attention/linear_1")
            take(f"{to}.mlp.0", f"{of}/ffn/linear_0")
            take(f"{to}.mlp.2", f"{of}/ffn/linear_1")
            norm(f"{to}.attn_ln", f"{of}/self_attention/layer_norm")
            norm(f"{to}.mlp_ln", f"{of}/ffn/layer_norm")
            if side == "decoder":
                take(f"{to}.cross_attn.query", f"{of}/attention/linear_0")
                take(f"{to}.cross_attn.key", f"{of}/attention/linear_1", first, ["weight"])
                take(f"{to}.cross_attn.value", f"{of}/attention/linear_1", second)
                take(f"{to}.cross_attn.out", f"{of}/attention/linear_2")
                norm(f"{to}.cross_attn_ln", f"{of}/attention/layer_norm")
    take("encoder.conv1", "encoder/conv1")
    take("encoder.conv2", "encoder/conv2")
    expected["decoder.token_embedding.weight"] = w["decoder/embeddings/weight"]
    norm("encoder.ln_post", "encoder/layer_norm")
    norm("decoder.ln", "decoder/layer_norm")
    assert found.keys() == expected.keys()
    for name, data in found.items():
        assert np.array_equal(data.reshape(expected[name].shape), expected[name]), name
        full = name.endswith("bias") or "_embedding" in name.replace("token_embedding", "") or data.ndim == 1
        assert data.dtype == (np.float32 if full else np.float16), name


def test_tensors_come_in_the_order_of_the_official_files(tmp_path):
    """Only in the order of OpenAI's checkpoints can the published sha256 come out."""
    _, _, found = whispers.read_ggml(converted(tmp_path, whispers.model_bin(WEIGHTS)))
    names = [name for name in found if name.endswith(("weight", "embedding"))]
    linears = [f"attn.{part}" for part in ("query", "key", "value", "out")]
    encoder = ["mlp_ln", "mlp.0", "mlp.2", "attn_ln", *linears]
    decoder = [*encoder, "cross_attn_ln", *(f"cross_{part}" for part in linears)]
    assert names == [
        *("decoder.positional_embedding", "encoder.positional_embedding", "decoder.token_embedding.weight"),
        *(f"decoder.blocks.0.{part}.weight" for part in decoder),
        *("decoder.ln.weight", "encoder.conv1.weight", "encoder.conv2.weight"),
        *(f"encoder.blocks.{layer}.{part}.weight" for layer in (0, 1) for part in encoder),
        "encoder.ln_post.weight",
    ]


def test_conversion_gives_the_same_file_each_time(tmp_path):
    """So a sha256 can be pinned. Other weights give another file."""
    first = converted(tmp_path, whispers.model_bin(WEIGHTS)).read_bytes()
    assert converted(tmp_path, whispers.model_bin(WEIGHTS)).read_bytes() == first
    assert converted(tmp_path, whispers.model_bin(whispers.weights(2))).read_bytes() != first


def test_multilingual_vocabulary_may_have_an_empty_token(tmp_path):
    """The official one has it at its end. Special tokens after it are not written."""
    lines = [*VOCABULARY.split("\n")[:50_256], "", "<|endoftext|>", ""]
    _, tokens, _ = whispers.read_ggml(converted(tmp_path, whispers.model_bin(WEIGHTS), "\n".join(lines)))
    assert (len(tokens), tokens[-1]) == (50_257, b"")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"encoder/conv1/bias": None}, "is not a Whisper that can be converted: 'encoder/conv1/bias'"),
        ({"decoder/num_heads": None}, "is not a Whisper that can be converted: 'decoder/num_heads'"),
        (
            {"encoder/layer_1/ffn/linear_0/weight": np.zeros((4 * WIDTH, WIDTH), np.int8)},
            "encoder/layer_1/ffn/linear_0/weight is int8, must be float16",
        ),
        (
            {"decoder/layer_0/ffn/linear_1/bias": np.zeros(WIDTH + 1, np.float16)},
            "decoder.blocks.0.mlp.2.bias has the shape [33], must have [32]",
        ),
        (
            {"decoder/layer_0/self_attention/linear_0/bias": np.zeros(97, np.float16)},
            "decoder/layer_0/self_attention/linear_0/bias has 97 rows, which are not 3 equal shares",
        ),
        ({"encoder/conv1/weight": np.zeros((WIDTH, 128, 3), np.float16)}, "has 128 mel bands, must have 80"),
    ],
)
def test_anything_but_a_float16_whisper_is_refused(tmp_path, change, sentence):
    """The error names the variable and what it must be."""
    variables = {name: data for name, data in (WEIGHTS | change).items() if data is not None}
    assert complaint(tmp_path, whispers.model_bin(variables)).endswith(sentence)


def test_other_formats_are_named(tmp_path):
    """A newer version or another kind of network is refused, not guessed at."""
    newer = complaint(tmp_path, whispers.model_bin(WEIGHTS, version=7))
    assert newer == "is 'WhisperSpec' of version 7, must be 'WhisperSpec' of version 6"
    assert "is 'TransformerSpec'" in complaint(tmp_path, whispers.model_bin(WEIGHTS, spec="TransformerSpec"))


def test_truncation_anywhere_is_found(tmp_path):
    """A file cut at any length is refused."""
    whole, chance = whispers.model_bin(WEIGHTS), random.Random(5)
    for cut in (1, 3, 10, 30, len(whole) - 1, *(chance.randrange(1, len(whole)) for _ in range(20))):
        assert "is not a whole CTranslate2 model" in complaint(tmp_path, whole[:cut])


def test_sizes_that_do_not_fit_their_shape_are_found(tmp_path):
    """A variable that claims more bytes than its shape has is damage, not a reason to read on."""
    name = b"decoder/layer_norm/beta\0"
    data = bytearray(whispers.model_bin(WEIGHTS))
    at = data.index(name) + len(name) + 1 + 4 + 1
    assert struct.unpack_from("<I", data, at) == (2 * WIDTH,)
    struct.pack_into("<I", data, at, 2 * WIDTH + 2)
    assert "decoder/layer_norm/beta has 66 bytes, which is not float16 [32]" in complaint(tmp_path, bytes(data))


def test_short_vocabulary_is_refused(tmp_path):
    """Tokens are counted before anything is written."""
    reason = complaint(tmp_path, whispers.model_bin(WEIGHTS), "a\nb\nc")
    assert reason == "its vocabulary has 3 tokens, must have 50257"
    assert not (tmp_path / "ggml.bin").exists()
