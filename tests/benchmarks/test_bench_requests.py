"""The benchmark of requests: what it sends, what it makes of wrk's numbers, and what it needs."""

from __future__ import annotations

import base64
import json
from argparse import Namespace

import pytest

from benchmarks import requests
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.errors import CannotStart
from transcriber.domain.wav import wav_head


def test_body_is_a_wav_of_the_length_asked_for() -> None:
    """A tenth of a second, as the gateway reads it."""
    body = json.loads(requests._body(100))
    head = wav_head(base64.b64decode(body["audio_data"]))
    assert head is not None
    assert (head.format, head.size) == (AudioFormat(Encoding.S16LE, 16_000, 1), 3200)


def test_share_is_of_what_waiting_allows() -> None:
    """Fifty connections that wait 30 ms each can make 1,667 requests a second."""
    found = {"requests": 15_000, "microseconds": 10_000_000, "failed": 0, "p50": 31_000, "p99": 52_000}
    row = requests._row(found, 50, cpu=1.5)
    assert row["rate"] == 1500
    assert row["limit"] == pytest.approx(1666.7, abs=0.1)
    assert row["share"] == pytest.approx(0.9)
    assert row["cpu"] == pytest.approx(100e-6)
    assert requests._cells(50, row) == ["50", "1500", "1667", "0.900", "31.0", "52.0", "100"]


def test_wrk_opens_all_connections_that_it_is_asked_for() -> None:
    """It gives each of its threads as many, and leaves the rest away."""
    assert {number: requests._threads(number) for number in (1, 2, 7, 50, 51, 400)} == {
        1: 1,
        2: 2,
        7: 1,
        50: 2,
        51: 3,
        400: 4,
    }


async def test_missing_wrk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CannotStart, match="apt install wrk"):
        await requests.run(Namespace(seconds=1, connections=[1], audio_ms=100))
