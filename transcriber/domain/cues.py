"""Writes the cues of subtitles: SubRip and WebVTT. Pure."""

from __future__ import annotations

import html

VTT_HEAD = "WEBVTT\n"  # the first line of a WebVTT file, and an empty one


def timestamp(seconds: float, separator: str = ".") -> str:
    """Format as HH:MM:SS.mmm, rounded to milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{separator}{rest % 1000:03}"


def srt_cue(number: int, start: float, end: float, text: str) -> str:
    """One cue of SubRip with its last line end, on one line. Bounds in seconds; `number` counts from 1."""
    line = " ".join(text.split()).replace("-->", "->")
    return f"{number}\n{timestamp(start, ',')} --> {timestamp(end, ',')}\n{line}\n"


def vtt_cue(start: float, end: float, text: str) -> str:
    """One cue of WebVTT with its last line end, on one line. Bounds in seconds."""
    line = html.escape(" ".join(text.split()), quote=False)
    return f"{timestamp(start)} --> {timestamp(end)}\n{line}\n"
