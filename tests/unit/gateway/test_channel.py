"""A client's bytes become whole sample frames, and its sessions share one clock."""

from __future__ import annotations

import pytest
from daemon_says import final
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.channel import Channel, words
from transcriber.gateway.dialects.dialect import Audio, Begin, End, Flush, Hearing

STEREO = Hearing(format=AudioFormat(Encoding.F32LE, 16_000, 2))  # 8 bytes a sample frame


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_every_whole_frame_is_sent_once_and_in_order(parts: list[bytes]) -> None:
    channel = Channel(STEREO)
    sent = [command for part in parts for command in channel.audio(part)]
    given_bytes = b"".join(parts)
    whole = len(given_bytes) - len(given_bytes) % 8
    chunks = [command.pcm for command in sent if isinstance(command, Audio)]
    assert b"".join(chunks) == given_bytes[:whole]
    assert all(len(chunk) % 8 == 0 for chunk in chunks)
    assert [c for c in sent if isinstance(c, Begin)] == [Begin(STEREO)] * bool(whole)
    assert channel.heard == whole / 8 / 16_000


def test_flush_and_end_need_a_session() -> None:
    channel = Channel(STEREO, 3)
    assert [*channel.flush(), *channel.end()] == []
    list(channel.audio(bytes(8)))
    assert [*channel.flush(), *channel.end()] == [Flush(3), End(3)]


def test_second_session_begins_where_the_first_ended() -> None:
    """Times of its results count from there on the client's clock."""
    channel = Channel(STEREO)
    list(channel.audio(bytes(8 * 16_000)))
    assert channel.at(0.5) == pytest.approx(0.5)
    channel.ended()
    assert isinstance(next(iter(channel.audio(bytes(8)))), Begin)
    assert channel.at(0.5) == pytest.approx(1.5)


def test_truncated_result_has_no_words() -> None:
    """A daemon leaves words out of a result that is too long, then segments."""
    whole = final("turn left")
    assert [word["word"] for word in words(whole)] == ["turn", "left"]
    for segment in whole["segments"]:
        segment.pop("words")
    assert words(whole) == []
    whole.pop("segments")
    assert words(whole) == []
