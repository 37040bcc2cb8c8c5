"""Cues of subtitles, read back by the formats' own rules."""

from __future__ import annotations

import pytest
from cues import parse_srt, parse_vtt

from transcriber.domain.cues import VTT_HEAD, srt_cue, timestamp, vtt_cue


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00.000"), (59.9995, "00:01:00.000"), (3600.0004, "01:00:00.000"), (360_000.5, "100:00:00.500")],
)
def test_timestamps_round_to_milliseconds_and_carry(seconds, text):
    """There is no 60th second. More than 99 hours are shown."""
    assert timestamp(seconds) == text


def test_cues_read_back_as_they_were_written() -> None:
    """Line ends, arrows and markup in a text leave the file valid."""
    rows = [(0.5, 2.25, "a --> b\n c"), (2.25, 4.0, "1 < 2 & <i>3</i>")]
    srt = "".join(f"{srt_cue(number, *row)}\n" for number, row in enumerate(rows, 1))
    assert parse_srt(srt) == [(0.5, 2.25, "a -> b c"), (2.25, 4.0, "1 < 2 & <i>3</i>")]
    vtt = "".join(f"{block}\n" for block in [VTT_HEAD, *(vtt_cue(*row) for row in rows)])
    assert parse_vtt(vtt) == [(0.5, 2.25, "a --> b c"), (2.25, 4.0, "1 < 2 & <i>3</i>")]
