"""How many streams a partition has at work, by the time in which their audio was sent."""

from __future__ import annotations

import numpy as np
import pytest

from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import Sessions
from transcriber.daemon.fleet_load import Load
from transcriber.domain.chunks import AudioFormat, Chunk, Encoding
from transcriber.domain.measurements import Tallies

RATE = 16_000


def sessions() -> Sessions:
    return Sessions(SessionOptions(), lambda: "x", Tallies())


def send(to: Sessions, begin: float, seconds: float, now: float, stream: str = "s1") -> None:
    pcm = np.zeros(int(seconds * RATE), "<i2").tobytes()
    audio = AudioFormat(Encoding("pcm_s16le"), RATE, 1)
    to.receive(Chunk(stream=stream, session="x", offset=int(begin * RATE), format=audio, pcm=pcm), now)


def test_streams_in_real_time_count_once_each() -> None:
    """Three of them are three."""
    heard = sessions()
    load = Load(heard, 0.0)
    for second in range(10):
        for n in range(3):
            send(heard, second, 1.0, second, f"s{n}")
        seen = load.measured(second + 1.0)
    assert seen == pytest.approx(3.0)


def test_stream_that_sends_faster_counts_for_more() -> None:
    """Four seconds of audio a second, for long enough: nearly four streams."""
    heard = sessions()
    load = Load(heard, 0.0)
    for second in range(20):
        send(heard, 4.0 * second, 4.0, second)
        seen = load.measured(second + 1.0)
    assert seen == pytest.approx(4.0, rel=0.05)


def test_stream_that_is_caught_up_with_counts_once() -> None:
    """A new owner reads five stored seconds in no time. The clock of stored audio says that they took five."""
    heard = sessions()
    load = Load(heard, 105.0)  # the reader's own clock, before the first message
    for second in range(5):
        send(heard, second, 1.0, 100.0 + second)
        assert load.measured(101.0 + second) == 1.0
    for second in range(5, 15):
        send(heard, second, 1.0, 100.0 + second)
        seen = load.measured(101.0 + second)
    assert seen == pytest.approx(1.0, abs=0.01)
