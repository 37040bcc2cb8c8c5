"""Every outgoing message fits the schema, its id and the server's limit."""

from __future__ import annotations

import json
from typing import Any

from harness import schema
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.events import Ended, Flushed, Rejected, Speech, Started, Status, Suppressed
from transcriber.domain.results import HeldBack, Hypothesis, Latency, Recognition, Segment, Transcript, Word
from transcriber.domain.timeline import Account, Closed, Gap, GapReason, Origin
from transcriber.protocol.outgoing import (
    Message,
    encode_event,
    encode_final,
    encode_partial,
    encode_reply,
    encode_speech,
    encode_status,
)

STREAMS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=128)
ORIGINS = st.builds(Origin, STREAMS, PRINTABLE, st.none() | PRINTABLE)
POSITIONS = st.integers(0, 2 * 10**15)
SHARE = st.floats(0, 1)
SECONDS = st.floats(0, 1e6)
REASONS = st.sampled_from(GapReason)
COUNTS = st.integers(1, 10**12)
ACCOUNTS = st.builds(
    Account,
    received=POSITIONS,
    transcribed=POSITIONS,
    silent=POSITIONS,
    gap=st.dictionaries(REASONS, COUNTS),
    pending=st.just(0),
)
EVENTS = st.one_of(
    st.builds(Started, origin=ORIGINS),
    st.builds(Ended, ORIGINS, ACCOUNTS),
    st.builds(Flushed, ORIGINS, POSITIONS),
    st.builds(Speech, ORIGINS, POSITIONS, POSITIONS, st.sampled_from(Closed)),
    st.builds(Gap, origin=ORIGINS, start=POSITIONS, end=POSITIONS, reason=REASONS),
    st.builds(Rejected, stream=STREAMS, session=st.none() | PRINTABLE, reason=st.text(), detail=st.text()),
    st.builds(Suppressed, origin=ORIGINS, start=POSITIONS, end=POSITIONS, reason=st.text(), text=st.text()),
)
WORDS = st.builds(Word, st.text(), st.integers(0, 10**6), st.integers(0, 10**6), SHARE)
SEGMENTS = st.builds(
    Segment,
    text=st.text(),
    start=st.integers(0, 10**6),
    end=st.integers(0, 10**6),
    confidence=SHARE,
    words=st.lists(WORDS, max_size=3).map(tuple),
)
RECOGNITIONS = st.builds(
    Recognition,
    st.lists(SEGMENTS, max_size=3).map(tuple),
    st.sampled_from(["en", "de", ""]),
    st.text(),
    st.lists(st.builds(HeldBack, SEGMENTS, st.text()), max_size=1).map(tuple),
)
LATENCIES = st.builds(Latency, SECONDS, SECONDS, SECONDS)
TRANSCRIPTS = st.builds(
    Transcript,
    origin=ORIGINS,
    sequence=st.integers(0),
    start=POSITIONS,
    end=POSITIONS,
    recognition=RECOGNITIONS,
    latency=LATENCIES,
    closed=st.sampled_from(Closed),
)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def valid(message: Message) -> dict[str, Any]:
    """The body, after the checks that hold for all messages."""
    body: dict[str, Any] = json.loads(message.payload)
    schema().validate(body)
    assert message.headers["Content-Type"] == "application/json"
    block = "NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in message.headers.items()) + "\r\n"
    assert message.size == len(block.encode()) + len(message.payload)
    return body


@given(event=EVENTS, unique=COUNTS)
def test_every_event_fits_the_schema(event: Any, unique: int) -> None:
    """The JSON of any event fits the schema and goes to the stream's event subject."""
    message = encode_event(event, unique)
    body = valid(message)
    stream, session = (event.origin.stream, event.origin.session) if hasattr(event, "origin") else (event.stream, "")
    assert (body["v"], body["type"], body["stream"]) == (1, type(event).__name__.lower(), stream)
    assert message.subject == f"transcript.{stream}.event"
    identity = message.headers["Nats-Msg-Id"]
    assert identity.startswith(f"{stream}/{session}")
    if hasattr(event, "start"):
        assert identity == f"{stream}/{session}/{body['type']}/{event.start}-{event.end}"
        assert (round(body["start"] * 16000), round(body["end"] * 16000)) == (event.start, event.end)
    else:
        assert identity == f"{stream}/{body['session']}/{body['type']}/{unique}"
    if hasattr(event, "origin") and event.origin.tenant is not None:
        assert body["tenant"] == message.headers["Audio-Tenant"] == event.origin.tenant


@given(origin=ORIGINS, account=ACCOUNTS)
def test_ended_carries_the_account_in_seconds_unrounded(origin: Origin, account: Account) -> None:
    """Totals are at top level, gaps by reason. Only reasons that occurred are there."""
    body = valid(encode_event(Ended(origin, account), 1))
    for name in ("received", "transcribed", "silent", "pending"):
        assert body[name] == getattr(account, name) / 16000
    assert body["gap"] == {reason.value: samples / 16000 for reason, samples in account.gap.items()}


@given(origin=ORIGINS, account=ACCOUNTS, jobs=st.integers(0, 100), rtf=SECONDS)
def test_status_fits_the_schema(origin: Origin, account: Account, jobs: int, rtf: float) -> None:
    """Status goes to a subject of its own, with the account and where the queue stands."""
    message = encode_status(
        Status(origin=origin, account=account, pending_jobs=jobs, queue_capacity=7, estimated_wait=1.5, rtf=rtf), 9
    )
    body = valid(message)
    assert message.subject == f"transcript.{origin.stream}.status"
    assert (body["pending_jobs"], body["queue_capacity"], body["estimated_wait"]) == (jobs, 7, 1.5)
    assert message.headers["Nats-Msg-Id"] == f"{origin.stream}/{origin.session}/status/9"


@given(transcript=TRANSCRIPTS, limit=st.integers(0, 3000), trace=st.none() | st.just(TRACE))
def test_a_final_fits_the_schema_and_the_limit(transcript: Transcript, limit: int, trace: str | None) -> None:
    """Any max_payload gives a valid result. It fits, unless its bare frame alone is larger."""
    message = encode_final(transcript, trace, limit)
    body = valid(message)
    origin = transcript.origin
    assert message.subject == f"transcript.{origin.stream}.final"
    assert message.headers.get("traceparent") == trace
    identity = f"{origin.stream}/{origin.session}/final/{transcript.start}-{transcript.end}"
    assert message.headers["Nats-Msg-Id"] == identity
    assert message.size <= limit or (body["text"] == "" and "segments" not in body)
    assert ("truncated" in body) == (encode_final(transcript, trace, 10**9).size > limit)
    assert body["sequence"] == transcript.sequence


@given(transcript=TRANSCRIPTS, text=st.text(), stable=st.integers(0, 100), limit=st.integers(0, 3000))
def test_a_partial_is_a_final_with_a_stable_prefix(transcript: Transcript, text: str, stable: int, limit: int) -> None:
    """It has its own subject. However small max_payload is, the rest of `stable` begins the rest of the text."""
    message = encode_partial(Hypothesis(transcript, text, text[:stable]), None, limit)
    body = valid(message)
    origin = transcript.origin
    assert message.subject == f"transcript.{origin.stream}.partial"
    identity = f"{origin.stream}/{origin.session}/partial/{transcript.start}-{transcript.end}"
    assert message.headers["Nats-Msg-Id"] == identity
    assert body["text"].startswith(body["stable"])
    assert message.size <= limit or (body["text"] == "" and "segments" not in body)
    assert body["text"] == text or body["truncated"]


def long_transcript() -> Transcript:
    words = tuple(Word(f"wort{i:02}", i * 160, i * 160 + 100, 0.5) for i in range(20))
    segments = tuple(
        Segment(text="ein langer Satz ä", start=i * 3200, end=i * 3200 + 3000, confidence=0.5, words=words)
        for i in range(5)
    )
    recognition = Recognition(segments, "de", "stub")
    return Transcript(
        origin=Origin("s1", "run"),
        sequence=3,
        start=16000,
        end=32000,
        recognition=recognition,
        latency=Latency(0.1, 0.2, 0.3),
        closed=Closed.PAUSE,
    )


def stage(body: dict[str, Any]) -> str:
    """How much of the result is left."""
    if "segments" not in body:
        return "whole text" if body["text"] == long_transcript().recognition.text else "part of the text"
    return "words" if all("words" in s for s in body["segments"]) else "segments"


def test_oversized_result_loses_words_then_segments_then_text() -> None:
    """A smaller max_payload takes the parts in the protocol's order. The result says so from the first byte on."""
    whole = encode_final(long_transcript(), None, 10**9)
    seen = []
    for limit in (whole.size, *range(whole.size - 1, 300, -31)):
        message = encode_final(long_transcript(), None, limit)
        body = valid(message)
        assert message.size <= limit or body["text"] == ""
        assert ("truncated" in body) == (limit < whole.size)
        if not seen or seen[-1] != stage(body):
            seen.append(stage(body))
    assert seen == ["words", "segments", "whole text", "part of the text"]


@given(opened=st.builds(Speech, ORIGINS, POSITIONS))
def test_speech_opens_with_its_start_alone(opened: Speech) -> None:
    """Its end is not known yet. Where events are stored in order, it takes another subject."""
    body = valid(encode_speech(opened))
    assert round(body["start"] * 16000) == opened.start
    assert not {"end", "closed"} & body.keys()
    assert encode_speech(opened, "partial").subject == f"transcript.{opened.origin.stream}.partial"


@given(transcript=TRANSCRIPTS, limit=st.integers(0, 3000))
def test_a_reply_has_the_shape_of_a_final(transcript: Transcript, limit: int) -> None:
    """The reply is a `final` without a subject or id of its own, and is cut to size like one."""
    message = encode_reply(transcript, limit)
    body = valid(message)
    assert body["type"] == "final"
    assert (message.subject, "Nats-Msg-Id" in message.headers) == ("", False)
    assert message.size <= limit or (body["text"] == "" and "segments" not in body)


def test_bounds_of_segments_and_words_lie_on_the_timeline() -> None:
    """Inside, segments count from the first sample of their window. In JSON they count from that of the session."""
    body = valid(encode_final(long_transcript(), None, 10**9))
    assert (body["start"], body["end"]) == (1.0, 2.0)
    assert body["segments"][1]["start"] == 1.0 + 3200 / 16000
    assert body["segments"][0]["words"][2] == {"word": "wort02", "start": 1.02, "end": 1.02625, "confidence": 0.5}
