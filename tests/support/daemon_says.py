"""What the daemon publishes about a session, made by hand and checked against the JSON Schema."""

from __future__ import annotations

from typing import Any

from checks import schema

Message = dict[str, Any]


def _message(kind: str, **fields: Any) -> Message:
    body = {"v": 1, "type": kind, "stream": "s1", "session": "x", **fields}
    schema().validate(body)
    return body


def final(text: str, start: float = 0.0, *, confidence: float = 0.9, kind: str = "final", **more: Any) -> Message:
    """A window of a tenth of a second for each word, all of the same confidence."""
    said = [
        {"word": word, "start": start + n / 10, "end": start + (n + 1) / 10, "confidence": confidence}
        for n, word in enumerate(text.split())
    ]
    end = start + max(1, len(said)) / 10
    times = {"start": start, "end": end}
    segments = [{**times, "text": text, "confidence": confidence, "words": said}] if text else []
    took = {"queue": 0.0, "processing": 0.1, "end_to_end": 0.1}
    more |= {"closed": "pause"} if kind == "final" else {}
    about = {"language": "en", "confidence": confidence, "model": "m", "latency": took, "rtf": 0.1, "sequence": 0}
    return _message(kind, **times, text=text, segments=segments, **about, **more)


def partial(text: str, stable: str = "", start: float = 0.0) -> Message:
    return final(text, start, kind="partial", stable=stable)


def gap(start: float, end: float, reason: str = "queue_full") -> Message:
    return _message("gap", start=start, end=end, reason=reason)


def ended(received: float = 0.0, **gaps: float) -> Message:
    lost = sum(gaps.values())
    return _message("ended", received=received, transcribed=received - lost, silent=0.0, gap=gaps, pending=0.0)


def rejected(reason: str = "container", detail: str = "this is an Ogg file") -> Message:
    return _message("rejected", reason=reason, detail=detail)


def flushed(end: float) -> Message:
    return _message("flushed", end=end)


def speech(start: float, end: float | None = None, closed: str = "pause") -> Message:
    return _message("speech", start=start, **({} if end is None else {"end": end, "closed": closed}))
