"""Header names, in any case and misspelt."""

from __future__ import annotations

import pytest

from transcriber.protocol import headers


def test_names_are_read_whatever_their_case() -> None:
    """That holds for a block and for a mapping. Unknown names stay as they are."""
    block = b"NATS/1.0\r\naudio-session: a\r\nAUDIO-OFFSET: 3\r\nTraceParent: t\r\nX-Own: 1\r\n\r\n"
    read = {"Audio-Session": "a", "Audio-Offset": "3", "traceparent": "t", "X-Own": "1"}
    assert headers.fields(block) == read
    assert headers.canonical({"audio-session": "a", "AUDIO-OFFSET": "3", "TraceParent": "t", "X-Own": "1"}) == read
    assert headers.unknown(read) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Audio-SampleRate", "Audio-Sample-Rate"),
        ("Audio-Rate", "Audio-Sample-Rate"),
        ("audio_sample_rate", "Audio-Sample-Rate"),
        ("X-Audio-Sample-Rate", "Audio-Sample-Rate"),
        ("AudioChannels", "Audio-Channels"),
        ("Audio-Format", "Audio-Encoding"),
        ("Audio-Codec", "Audio-Encoding"),
        ("Audio-Sesion", "Audio-Session"),
        ("Audio-Lang", "Audio-Language"),
        ("Audio-Qwxyz", None),
        ("Audio-" + "x" * 5000, None),
    ],
)
def test_a_misspelt_name_is_shown_with_the_one_that_was_meant(name: str, meant: str | None) -> None:
    """Only the first one is shown. There is no suggestion where nothing is close."""
    assert headers.unknown({"Audio-Session": "a", name: "1", "Audio-Other": "2"}) == (name[:64], meant)
