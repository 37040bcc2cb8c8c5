"""Messages as the daemon publishes them, and subtitles read back."""

from __future__ import annotations

import re

SRT_TIME = r"(\d{2,}):(\d\d):(\d\d),(\d{3})"
VTT_TIME = r"(\d{2,}):(\d\d):(\d\d)\.(\d{3})"
ENTITIES = {"&lt;": "<", "&gt;": ">", "&amp;": "&"}


def final(text, start=0.0, end=1.0, stream="radio-1", session="a", **more):
    return {
        "v": 1,
        "type": "final",
        "stream": stream,
        "session": session,
        "start": start,
        "end": end,
        "text": text,
    } | more


def event(kind, stream="radio-1", session="a", **more):
    return {"v": 1, "type": kind, "stream": stream, "session": session} | more


def cue_times(line, pattern):
    match = re.fullmatch(f"{pattern} --> {pattern}", line)
    assert match, line
    hours, minutes, seconds, millis = (match.groups()[i::4] for i in range(4))
    return tuple(
        int(h) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000
        for h, m, s, ms in zip(hours, minutes, seconds, millis, strict=True)
    )


def parse_srt(text):
    """The SubRip rules: a counter, the times, text without an empty line, an empty line."""
    cues = []
    for number, block in enumerate(text.removesuffix("\n\n").split("\n\n") if text else [], 1):
        counter, times, *lines = block.split("\n")
        assert counter == str(number)
        assert lines
        assert not any("-->" in line for line in lines)
        cues.append((*cue_times(times, SRT_TIME), "\n".join(lines)))
    return cues


def parse_vtt(text):
    """The WebVTT rules (w3.org/TR/webvtt1): a header, times with points, entities for markup, ascending starts."""
    header, *blocks = text.removesuffix("\n\n").split("\n\n")
    assert header == "WEBVTT"
    cues = []
    for block in blocks:
        times, *lines = block.split("\n")
        body = "\n".join(lines)
        assert body
        assert "-->" not in body
        assert not re.search(r"[<>]|&(?!lt;|gt;|amp;)", body)
        start, end = cue_times(times, VTT_TIME)
        assert start < end
        assert not cues or cues[-1][0] <= start
        cues.append((start, end, re.sub("&lt;|&gt;|&amp;", lambda m: ENTITIES[m[0]], body)))
    return cues
