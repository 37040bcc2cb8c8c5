"""Files and texts in place of PCM: their first bytes name them, and no PCM is taken for one."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from transcriber.audio.pcm import decode
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.containers import FRAMES_BYTES, HEAD_BYTES, known, may_be_frames, name_of

NOISE = np.random.default_rng(0).normal(0, 0.1, 48_000)


def written(kind: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, NOISE, 48_000, format=kind, subtype=subtype)
    return file.getvalue()


FILES = {
    "WAV": written("WAV"),
    "FLAC": written("FLAC"),
    "Ogg": written("OGG", "OPUS"),
    "MP3": written("MP3"),
    "AIFF": written("AIFF"),
    "CAF": written("CAF"),
    "AU": written("AU"),
    "MP4": b"\0\0\0\x1cftypM4A \0\0\2\0M4A mp42isom\0\0\0\x08free",
    "WebM": bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d42878104"),
    "AMR": b"#!AMR-WB\n" + bytes(60),
    "AAC": 3 * (bytes.fromhex("fff15080017ffc") + bytes(4)),
}
TEXTS = {
    "JSON": [b'{"audio": "AAAA"}', b'[{"a": 1}]', b' {\n "b" : 2}'],
    "text": [b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body></body></html>"],
    "base64": [base64.b64encode(NOISE.astype("<f4").tobytes()[:900])],
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_named_by_how_it_begins(name: str) -> None:
    """Also after an ID3 tag, in base64, in base64 of a data URL, and inside JSON."""
    data = FILES[name]
    assert name_of(data) == name
    coded = base64.b64encode(data + bytes(range(60)))
    assert name_of(coded) == name_of(b"data:audio/x;base64," + coded) == f"base64 of {name}"
    assert name_of(json.dumps({"audio": coded.decode()}).encode()) == "JSON"
    assert known(data) == (name if name not in {"MP3", "MP4", "AAC"} else None)


@pytest.mark.parametrize("name", FILES)
def test_first_bytes_name_a_file_or_ask_for_more(name: str) -> None:
    """So a pipe is read no further than it takes."""
    head, more = FILES[name][:HEAD_BYTES], FILES[name][:FRAMES_BYTES]
    assert name_of(more) == name
    assert name_of(head) == name or may_be_frames(head)
    assert may_be_frames(head) == (name in {"MP3", "AAC"})
    assert not any(may_be_frames(samples[:n]) for samples in (bytes(72), b"\xff" * 72) for n in range(72))


def test_mp3_is_known_with_a_tag_without_one_and_frame_by_frame() -> None:
    """Three frames in a row, one alone, or an ID3 tag before them will do. Half a frame is not enough."""
    data = FILES["MP3"]
    second = data.index(data[:2], 2)
    assert name_of(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + data) == "MP3"
    assert name_of(data[:second]) == "MP3"
    assert name_of(data[second:]) == "MP3"
    assert name_of(data[: second // 2]) is None


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts])
def test_text_is_named(name: str, text: bytes) -> None:
    """A client wraps its audio in text, or its proxy sends an error page."""
    assert name_of(text) == name


@given(
    st.sampled_from(list(Encoding)),
    st.floats(0, 1),
    st.floats(-1, 1),
    st.integers(0, 2**32 - 1),
    st.sampled_from([80, 320, 4096]),
)
def test_no_pcm_is_taken_for_a_file(encoding: Encoding, level: float, offset: float, seed: int, frames: int) -> None:
    """Noise of any level over any DC offset, in every encoding, even where A-law or mu-law is printable."""
    rng = np.random.default_rng(seed)
    samples = np.clip(offset / 4 + level * rng.normal(0, 0.3, frames), -1, 1)
    if encoding is Encoding.F32LE:
        data = samples.astype("<f4").tobytes()
    elif encoding is Encoding.S16LE:
        data = (samples * 32767).astype("<i2").tobytes()
    else:
        table, _ = decode(bytes(range(256)), AudioFormat(encoding, 8000, 1))
        data = np.abs(table[None, :] - samples[:, None]).argmin(axis=1).astype(np.uint8).tobytes()
    assert name_of(data, wide=encoding in {Encoding.S16LE, Encoding.F32LE}) is None


@given(st.integers(0, 255), st.integers(0, 255), st.integers(1, 2000))
def test_no_constant_is_taken_for_a_file(one: int, other: int, times: int) -> None:
    """Silence in any encoding, and the output of a stuck converter."""
    assert name_of(bytes([one, other]) * times) is None


@given(st.binary(max_size=400))
def test_any_bytes_have_an_answer(data: bytes) -> None:
    """They may be short, and may begin with anything."""
    for begin in (b"", b"RIFF", b"ID3", b"\xff\xfb\x90", b"\xff\xf1", b"{", b"data:audio/x;base64,", b"\x1aE\xdf\xa3"):
        name_of(begin + data)
        known(begin + data)
