"""Outgoing messages: results, events and status to subjects, headers and JSON (see `schema.json`). Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transcriber.domain.events import (
    Ended,
    Event,
    Flushed,
    Rejected,
    Replaced,
    Speech,
    Started,
    Status,
    Suppressed,
    Swapped,
    TakenOver,
)
from transcriber.domain.timeline import SAMPLE_RATE, Account, Gap, Origin, Silence, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from transcriber.domain.results import Hypothesis, Segment, Transcript

VERSION = 1


@dataclass(frozen=True, slots=True)
class Message:
    """One NATS message, ready to publish."""

    subject: str
    headers: Mapping[str, str]
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes that count against max_payload, including the header block, which nats-py's check leaves out."""
        return len(self.payload) + header_bytes(self.headers)


def header_bytes(headers: Mapping[str, str]) -> int:
    """Bytes of the header block: `NATS/1.0`, a line for each header, an empty line."""
    return len("NATS/1.0\r\n\r\n") + sum(len(k.encode()) + len(v.encode()) + len(": \r\n") for k, v in headers.items())


def seconds(samples: int) -> float:
    """Samples on the timeline to seconds, unrounded."""
    return samples / SAMPLE_RATE


def encode_event(
    event: Event | Silence, unique: int, traceparent: str | None = None, more: Mapping[str, Any] | None = None
) -> Message:
    """Encode an event with `more` fields. `unique` ends the message id of an event without bounds."""
    identity, body = str(unique), dict[str, Any]()
    match event:
        case Silence(origin, start, end):
            kind, identity, body = "silence", f"{start}-{end}", _bounds(start, end)
        case Gap(origin=origin, start=start, end=end, reason=reason):
            kind, identity, body = "gap", f"{start}-{end}", {**_bounds(start, end), "reason": reason}
        case Suppressed(origin=origin, start=start, end=end, reason=reason, text=text):
            kind, identity = "suppressed", f"{start}-{end}"
            body = {**_bounds(start, end), "reason": reason, "text": text}
        case Ended(origin, account):
            kind, body = "ended", account_fields(account)
        case Flushed(origin, end, cursor):
            kind, identity, body = "flushed", str(cursor.seq) if cursor is not None else identity, {"end": seconds(end)}
        case Speech():
            return encode_speech(event)
        case Replaced(origin=origin) | TakenOver(origin=origin):
            kind, body = _moved(event)
        case Started(origin=origin):
            kind = "started"
        case Rejected(stream=stream, session=session, reason=reason, detail=detail, cursor=cursor):
            origin, kind, body = Origin(stream, session or ""), "rejected", {"reason": reason, "detail": detail}
            identity = str(cursor.seq) if cursor is not None else identity
    return _message(origin, kind, {**(more or {}), **body}, identity, traceparent=traceparent)


def _moved(event: Replaced | TakenOver) -> tuple[str, dict[str, Any]]:
    """Kind and fields of an event that tells of another stream of audio, or of another owner."""
    if isinstance(event, Replaced):
        return "replaced", {"detail": event.detail}
    return "taken_over", {"member": event.member, "epoch": event.epoch}


def encode_outputs(
    outputs: Iterable[Event | Window | Silence], unique: int, traceparent: str | None = None
) -> list[Message]:
    """Encode the events among a session's outputs. Windows and silences are not messages."""
    return [encode_event(o, unique, traceparent) for o in outputs if not isinstance(o, Window | Silence)]


def encode_speech(speech: Speech, subject: str = "event") -> Message:
    """Encode a speech event. `subject`: the last part of its subject."""
    identity, body = str(speech.start), {"start": seconds(speech.start)}
    if speech.end is None:
        return _message(speech.origin, "speech", body, identity, subject=subject)
    closed = {**_bounds(speech.start, speech.end), "closed": speech.closed}
    return _message(speech.origin, "speech", closed, f"{identity}-{speech.end}", subject=subject)


def encode_status(status: Status, unique: int) -> Message:
    """Encode a session's status."""
    body = {
        **account_fields(status.account),
        "pending_jobs": status.pending_jobs,
        "queue_capacity": status.queue_capacity,
        "estimated_wait": status.estimated_wait,
        "rtf": status.rtf,
        **({"lag_chunks": status.lag.chunks, "lag_seconds": status.lag.seconds} if status.lag is not None else {}),
    }
    return _message(status.origin, "status", body, str(unique), subject="status")


def encode_final(
    transcript: Transcript, traceparent: str | None, max_payload: int, more: Mapping[str, Any] | None = None
) -> Message:
    """Encode a result with `more` fields.

    One larger than `max_payload` bytes loses its words, then its segments, then the text's end.
    """
    identity = f"{transcript.start}-{transcript.end}"

    def build(body: Mapping[str, Any]) -> Message:
        return _message(transcript.origin, "final", body, identity, traceparent=traceparent, subject="final")

    return _fitted({**(more or {}), **_final(transcript)}, build, max_payload)


def encode_partial(hypothesis: Hypothesis, traceparent: str | None, max_payload: int) -> Message:
    """Encode a partial: the shape of a `final`, but the text after its `stable` part may still change."""
    transcript = hypothesis.transcript
    identity = f"{transcript.start}-{transcript.end}"

    def build(body: Mapping[str, Any]) -> Message:
        return _message(transcript.origin, "partial", body, identity, traceparent=traceparent, subject="partial")

    return _fitted(_result(transcript) | {"text": hypothesis.text, "stable": hypothesis.stable}, build, max_payload)


def encode_reply(transcript: Transcript, max_payload: int) -> Message:
    """Encode the reply to a request, in the shape of a `final` and cut to size like one."""

    def build(body: Mapping[str, Any]) -> Message:
        return Message("", {"Content-Type": "application/json"}, _json("final", transcript.origin, body))

    return _fitted(_final(transcript), build, max_payload)


def encode_swapped(swapped: Swapped) -> Message:
    """Encode the answer to a request for another model."""
    body = {
        "v": VERSION,
        "type": "swapped",
        "model": swapped.model,
        "sha256": swapped.sha256,
        "size": swapped.size,
        "rtf": swapped.rtf,
        "queue_capacity": swapped.queue_capacity,
        "before": {
            "model": swapped.before,
            "rtf": swapped.before_rtf,
            "queue_capacity": swapped.before_queue_capacity,
        },
    }
    return Message("", {"Content-Type": "application/json"}, json.dumps(body, ensure_ascii=False).encode())


def _fitted(body: dict[str, Any], build: Callable[[Mapping[str, Any]], Message], max_payload: int) -> Message:
    """Remove parts of the result until the message fits."""
    message = build(body)
    if message.size <= max_payload:
        return message
    body["truncated"] = True
    for segment in body["segments"]:
        segment.pop("words")
    if (message := build(body)).size > max_payload:
        body.pop("segments")
        message = build(body)
    while message.size > max_payload and body["text"]:
        body["text"] = body["text"][: len(body["text"]) // 2]
        if "stable" in body:
            body["stable"] = body["stable"][: len(body["text"])]
        message = build(body)
    return message


def _final(transcript: Transcript) -> dict[str, Any]:
    return _result(transcript) | {"closed": transcript.closed}


def _result(transcript: Transcript) -> dict[str, Any]:
    recognition = transcript.recognition
    return {
        "sequence": transcript.sequence,
        **_bounds(transcript.start, transcript.end),
        "text": recognition.text,
        "language": recognition.language,
        "confidence": recognition.confidence,
        "model": recognition.model,
        "segments": [_segment(s, transcript.start) for s in recognition.segments],
        "latency": {
            "queue": transcript.latency.queue,
            "processing": transcript.latency.processing,
            "end_to_end": transcript.latency.end_to_end,
        },
        "rtf": transcript.rtf,
    }


def _json(kind: str, origin: Origin, body: Mapping[str, Any]) -> bytes:
    """Return the JSON of one message."""
    head: dict[str, Any] = {"v": VERSION, "type": kind, "stream": origin.stream, "session": origin.session}
    if origin.tenant is not None:
        head["tenant"] = origin.tenant
    return json.dumps(head | dict(body), ensure_ascii=False, separators=(",", ":")).encode()


def _message(  # noqa: PLR0913 - all of it is what one message is made of
    origin: Origin,
    kind: str,
    body: Mapping[str, Any],
    identity: str,
    *,
    traceparent: str | None = None,
    subject: str = "event",
) -> Message:
    headers = {
        "Content-Type": "application/json",
        "Nats-Msg-Id": f"{origin.stream}/{origin.session}/{kind}/{identity}",
        **({"Audio-Tenant": origin.tenant} if origin.tenant is not None else {}),
        **({"traceparent": traceparent} if traceparent is not None else {}),
    }
    return Message(f"transcript.{origin.stream}.{subject}", headers, _json(kind, origin, body))


def _bounds(start: int, end: int) -> dict[str, float]:
    return {"start": seconds(start), "end": seconds(end)}


def account_fields(account: Account) -> dict[str, Any]:
    """Totals by fate, in seconds."""
    return {
        "received": seconds(account.received),
        "transcribed": seconds(account.transcribed),
        "silent": seconds(account.silent),
        "gap": {reason.value: seconds(samples) for reason, samples in account.gap.items()},
        "pending": seconds(account.pending),
    }


def _segment(segment: Segment, base: int) -> dict[str, Any]:
    return {
        **_bounds(base + segment.start, base + segment.end),
        "text": segment.text,
        "confidence": segment.confidence,
        "words": [
            {"word": w.text, **_bounds(base + w.start, base + w.end), "confidence": w.confidence} for w in segment.words
        ],
    }
