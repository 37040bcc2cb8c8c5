"""Results as text, JSON, SubRip and WebVTT."""

from __future__ import annotations

import json
import re
from decimal import Decimal

import pytest
from cues import event, final, parse_srt, parse_vtt
from hypothesis import given
from hypothesis import strategies as st

from transcriber.cli.subtitles import Formatter, Style, account


def printed(formatter, messages):
    """The output of `listen`: every block with a line end."""
    blocks = [formatter.head] if formatter.head else []
    blocks += [text for m in messages if (text := formatter.format(m)) is not None]
    return "".join(f"{block}\n" for block in blocks)


words = st.lists(
    st.one_of(
        st.sampled_from(["-->", "<b>", "&", "&lt;", "1", "WEBVTT", "ünï", "語"]), st.text("ab \n\t\u2028", max_size=4)
    ),
    max_size=5,
).map(" ".join)


@given(st.lists(st.tuples(words, st.integers(0, 20), st.integers(1, 300)), max_size=8))
def test_subtitles_parse_back_to_what_was_recognised(rows):
    """Arrows, markup and line ends in the text leave the files valid. Words and times are kept."""
    at, messages, wanted = 0, [], []
    for text, pause, length in rows:
        start, end = (at + pause) / 10, (at + pause + length) / 10
        at += pause + length
        messages.append(final(text, start, end))
        if text.split():
            wanted.append((start, end, " ".join(text.split())))
    assert parse_vtt(printed(Formatter(Style.VTT), messages)) == wanted
    arrowless = [(start, end, text.replace("-->", "->")) for start, end, text in wanted]
    assert parse_srt(printed(Formatter(Style.SRT), messages)) == arrowless


@pytest.mark.parametrize(("style", "parse"), [(Style.SRT, parse_srt), (Style.VTT, parse_vtt)])
def test_subtitles_hold_one_session(style, parse):
    """A file has one timeline: that of the first session heard, complete with its end."""
    formatter = Formatter(style)
    ended = [event("ended", session="before"), event("ended", stream="radio-2", session="b"), event("ended")]
    messages = [
        ended[0],
        event("started"),
        event("started", stream="radio-2", session="b"),
        final("from another", 5, 6, "radio-2", "b"),
        final("one", 1, 2),
        event("gap", start=2, end=3, reason="queue_full"),
        ended[1],
        final("two", 3, 4),
    ]
    assert parse(printed(formatter, messages)) == [(1, 2, "one"), (3, 4, "two")]
    assert [formatter.complete(message) for message in ended] == [False, False, True]


def test_text_shows_every_kind_of_message():
    """A person sees the words, and the reason where there are none."""
    bounds = {"start": 1, "end": 2.5}
    totals = {"received": 9, "transcribed": 4, "silent": 3, "gap": {"lag": 1.5, "queue_full": 0.5}, "pending": 0}
    shown = printed(
        Formatter(Style.TEXT, partials=True),
        [
            event("started"),
            final("hello there"),
            final(""),
            event("partial", text="hel", **bounds),
            event("gap", reason="deadline", **bounds),
            event("suppressed", reason="loop", text="thank you", **bounds),
            event("rejected", reason="rate", detail="Audio-Sample-Rate='7'"),
            event("lost", messages=3),
            event("unheard_of"),
            event("ended", **totals),
        ],
    )
    assert shown.splitlines() == [
        "radio-1  00:00.000 - 00:01.000  hello there",
        "radio-1  00:01.000 - 00:02.500  hel ...",
        "radio-1  00:01.000 - 00:02.500  [not transcribed: deadline]",
        "radio-1  00:01.000 - 00:02.500  [suppressed, loop: thank you]",
        "radio-1  [chunk rejected: Audio-Sample-Rate='7']",
        "radio-1  [3 messages lost]",
        (
            "radio-1  [ended: received 9.00 s = transcribed 4.00 + silent 3.00"
            " + gap 2.00 (lag 1.50, queue_full 0.50) + pending 0.00]"
        ),
    ]


def test_text_of_one_stream_leaves_out_its_name():
    """The user has named the stream already."""
    assert Formatter(Style.TEXT, name_streams=False).format(final("hi")) == "00:00.000 - 00:01.000  hi"


def test_text_after_the_first_hour_shows_hours():
    """A stream that runs for a day does not start over every hour."""
    assert Formatter(Style.TEXT).format(final("hi", 3599.5, 90_061.25)) == "radio-1  59:59.500 - 25:01:01.250  hi"


def test_text_keeps_control_characters_from_the_terminal():
    """Anybody may publish, and nobody may recolour or rename a listener's window."""
    line = Formatter(Style.TEXT).format(final("a\x1b[31mb\x07\r\nc\x9bd"))
    assert line == "radio-1  00:00.000 - 00:01.000  a [31mb   c d"


def test_json_is_the_message_on_one_line():
    """Nothing is added, and nothing is left out."""
    message = final("línea\nnueva", segments=[{"words": []}])
    line = Formatter(Style.JSON).format(message)
    assert json.loads(line) == message
    assert "\n" not in line


@given(st.lists(st.integers(0, 10**9), min_size=5, max_size=5))
def test_the_account_as_printed_adds_up(samples):
    """The printed equation is exact for any number of samples, not rounded term by term."""
    transcribed, silent, pending, lag, late = (n / 16000 for n in samples)
    received = sum(samples) / 16000
    gap = {"lag": lag, "deadline": late}
    line = account({"received": received, "transcribed": transcribed, "silent": silent, "gap": gap, "pending": pending})
    left, *terms = (Decimal(n) for n in re.findall(r"(?<=[a-z] )\d+\.\d{2,7}", re.sub(r" \(.*?\)", "", line)))
    assert left == sum(terms)
    assert left == Decimal(sum(samples)) / 16000


def test_text_leaves_out_partials_unless_they_are_asked_for():
    """Kept text needs each word once. JSON has everything that was heard."""
    partial = event("partial", text="hel", start=1, end=2.5)
    assert Formatter(Style.TEXT).format(partial) is None
    assert Formatter(Style.JSON).format(partial) is not None


def test_text_leaves_out_speech_events_and_answers_to_flushes():
    """They are for programs. An event with a start and no end is no error."""
    told = [event("speech", start=1.5), event("speech", start=1.5, end=2.5, closed="pause"), event("flushed", end=3.0)]
    assert [Formatter(Style.TEXT).format(message) for message in told] == [None] * 3
