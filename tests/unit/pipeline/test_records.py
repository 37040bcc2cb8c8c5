"""What is stored about a stream: every fate in order, and checkpoints from which a session resumes to the sample."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from checks import schema
from harness import Speech
from hypothesis import given, settings
from hypothesis import strategies as st

from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import SessionOutput, Sessions
from transcriber.broker.jetstream import trim_to
from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, Cursor, Encoding
from transcriber.domain.events import Ended, Flushed, Rejected, Started, Suppressed
from transcriber.domain.measurements import Tallies
from transcriber.domain.records import Record
from transcriber.domain.timeline import SAMPLE_RATE, Account, Checkpoint, Gap, GapReason, Origin, Silence, Window
from transcriber.pipeline.records import LONGEST_SILENCE, Records
from transcriber.protocol.checkpoints import decode_checkpoint, encode_record

ORIGIN = Origin("s1", "x")
FORMAT = AudioFormat(Encoding.S16LE, 48_000, 1)
RATES = [8000, 11_025, 16_000, 44_100, 48_000]


def window(sequence: int, start: int, end: int, origin: Origin = ORIGIN) -> Window:
    return Window(
        origin=origin,
        sequence=sequence,
        start=start,
        end=end,
        samples=np.zeros(end - start, np.float32),
        cursor=Cursor(sequence + 2, 7),
    )


def taken(records: Records) -> list[Record]:
    """Everything that can be stored now."""
    found = []
    while (record := records.next()) is not None:
        assert records.next() is record
        found.append(record)
        records.stored()
    return found


def started(origin: Origin, cursor: Cursor) -> Started:
    return Started(origin=origin, requested_id=origin.session, cursor=cursor, format=FORMAT)


def ended(origin: Origin, gaps: dict[GapReason, int]) -> Ended:
    received = sum(gaps.values())
    return Ended(origin, Account(received=received, transcribed=0, silent=0, gap=gaps, pending=0))


def begun() -> Records:
    records = Records(lambda _: FORMAT)
    records.add(started(ORIGIN, Cursor(1, 0)))
    return records


def gap(of: Window) -> Gap:
    return Gap(origin=of.origin, start=of.start, end=of.end, reason=GapReason.ENGINE_ERROR, cursor=of.cursor)


def test_windows_are_stored_in_order_however_decided() -> None:
    records = begun()
    first, second = window(0, 0, 100), window(1, 100, 300)
    records.add(first)
    records.add(second)
    assert [type(r.event) for r in taken(records)] == [Started]
    records.decide(second, gap(second))
    assert taken(records) == []
    records.decide(first, gap(first))
    stored = taken(records)
    assert [r.window for r in stored] == [first, second]
    assert [r.checkpoint.position for r in stored] == [100, 300]
    assert [r.checkpoint.sequence for r in stored] == [1, 2]
    assert stored[-1].checkpoint.account == Account(
        received=300, transcribed=0, silent=0, gap={GapReason.ENGINE_ERROR: 300}, pending=0
    )


def test_silence_is_stored_with_what_follows_unless_it_lasts() -> None:
    """Long silence has a record at least every ten seconds. Shorter silence shows in the next record's totals."""
    records = begun()
    records.add(Silence(ORIGIN, 0, 1000, Cursor(2, 0)))
    spoken = window(0, 1000, 1500)
    records.add(spoken)
    records.decide(spoken, gap(spoken))
    second = SAMPLE_RATE
    for k in range(25):
        records.add(Silence(ORIGIN, 1500 + k * second, 1500 + (k + 1) * second, Cursor(3 + k, 0)))
    stored = taken(records)
    assert [type(r.event) for r in stored] == [Started, Gap, Silence, Silence]
    assert stored[1].checkpoint.account.silent == 1000
    assert [(r.event.start, r.event.end) for r in stored[2:]] == [
        (1500, 1500 + LONGEST_SILENCE),
        (1500 + LONGEST_SILENCE, 1500 + 2 * LONGEST_SILENCE),
    ]


def test_a_session_ends_in_front_of_the_next_one() -> None:
    """Its last window may be decided when the next session has begun."""
    records = begun()
    last, other = window(0, 0, 100), Origin("s1", "y")
    records.add(last)
    records.add(Silence(ORIGIN, 100, 200, Cursor(9, 0)))
    records.add(started(other, Cursor(9, 0)))
    records.decide(last, gap(last))
    records.next()
    records.add(
        Ended(
            ORIGIN,
            Account(received=200, transcribed=0, silent=100, gap={GapReason.ENGINE_ERROR: 100}, pending=0),
            Cursor(9, 0),
        )
    )
    stored = taken(records)
    assert [type(r.event) for r in stored] == [Started, Gap, Ended, Started]
    assert stored[2].checkpoint.over
    assert stored[2].checkpoint.account.received == 200
    assert stored[3].checkpoint == Checkpoint(
        origin=other,
        requested_id="y",
        format=FORMAT,
        position=0,
        sequence=0,
        account=Account(received=0, transcribed=0, silent=0, gap={}, pending=0),
        cursor=Cursor(9, 0),
    )


def test_session_over_before_an_earlier_one_is_stored_after_it() -> None:
    """Two sessions without speech begin and end while a window of the first one is undecided."""
    alive = {ORIGIN}
    records = Records(lambda origin: FORMAT if origin in alive else None)
    records.add(started(ORIGIN, Cursor(1, 0)))
    last = window(0, 0, 100)
    records.add(last)
    for n, name in enumerate("yz", 3):
        records.add(started(Origin("s1", name), Cursor(n, 0)))
        records.add(ended(Origin("s1", name), {}))
    records.decide(last, gap(last))
    records.add(ended(ORIGIN, {GapReason.ENGINE_ERROR: 100}))
    stored = [(type(r.event).__name__, r.checkpoint.origin.session, r.checkpoint.over) for r in taken(records)]
    assert stored == [
        ("Started", "x", False),
        ("Gap", "x", False),
        ("Ended", "x", True),
        ("Started", "y", False),
        ("Ended", "y", True),
        ("Started", "z", False),
        ("Ended", "z", True),
    ]


def test_suppressed_text_comes_in_front_of_its_window() -> None:
    """Its checkpoint lies before the window. A daemon that resumes there decodes the window once more."""
    records = begun()
    spoken = window(0, 0, 100)
    records.add(spoken)
    taken(records)
    records.decide(spoken, gap(spoken), [Suppressed(origin=ORIGIN, start=0, end=50, reason="repetition", text="la la")])
    stored = taken(records)
    assert [type(r.event) for r in stored] == [Suppressed, Gap]
    assert [r.checkpoint.position for r in stored] == [0, 100]


counts = st.integers(0, 2**40)
gaps = st.dictionaries(st.sampled_from(GapReason), st.integers(1, 10**9))


@given(
    st.builds(
        Checkpoint,
        origin=st.builds(
            Origin, st.just("s1"), st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1)
        ),
        requested_id=st.none() | st.just("asked"),
        format=st.builds(AudioFormat, st.sampled_from(Encoding), st.sampled_from(RATES), st.integers(1, 8)),
        position=counts,
        sequence=counts,
        account=st.builds(Account, received=counts, transcribed=counts, silent=counts, gap=gaps, pending=st.just(0)),
        cursor=st.builds(Cursor, st.integers(1, 2**50), counts),
    ),
    st.sampled_from(["silence", "gap", "ended", "rejected", "suppressed", "flushed"]),
)
def test_a_checkpoint_comes_back_from_every_kind_of_record(at: Checkpoint, kind: str) -> None:
    at = Checkpoint(
        origin=at.origin,
        requested_id=at.requested_id,
        format=at.format,
        position=at.position,
        sequence=at.sequence,
        account=at.account,
        cursor=at.cursor,
        over=kind == "ended",
    )
    event = {
        "silence": Silence(at.origin, 0, at.position),
        "gap": Gap(origin=at.origin, start=0, end=at.position, reason=GapReason.LAG),
        "ended": Ended(at.origin, at.account),
        "rejected": Rejected(stream="s1", session=None, reason="rate", detail="detail", cursor=Cursor(5, 0)),
        "suppressed": Suppressed(origin=at.origin, start=1, end=2, reason="repetition", text="la la"),
        "flushed": Flushed(at.origin, 7, Cursor(5, 0)),
    }[kind]
    payload = encode_record(Record(event, at), 1, 2**20).payload
    schema().validate(json.loads(payload))
    assert decode_checkpoint(payload) == at


def spoken_chunks(speech: Speech, rate: int, sizes: list[int], *, offsets: bool) -> list[Chunk]:
    """The first seconds of the recording at this rate, in chunks of these sizes over and over, stored one by one."""
    source = speech.samples[: 9 * SAMPLE_RATE]
    moments = np.arange(0, len(source) - 1, SAMPLE_RATE / rate)
    pcm = (np.interp(moments, np.arange(len(source)), source) * 32767).astype("<i2")
    chunks, at = [], 0
    while at < len(pcm):
        size = sizes[len(chunks) % len(sizes)]
        offset = at if offsets else None
        cursor = Cursor(3 * len(chunks) + 1, 0)  # other streams lie between them
        payload = pcm[at : at + size].tobytes()
        chunks.append(Chunk("s1", AudioFormat(Encoding.S16LE, rate, 1), payload, "x", offset, cursor=cursor))
        at += size
    return chunks


def given_up(sessions: Sessions, records: Records, outputs: list[SessionOutput]) -> list[Record]:
    """Every window becomes a gap at once. Returns the records."""
    stored: list[Record] = []
    for output in outputs:
        records.add(output)
        if isinstance(output, Window):
            records.decide(output, gap(output))
        stored += taken(records)
        if isinstance(output, Window):
            settled = sessions.dropped(output, GapReason.ENGINE_ERROR)
            stored += given_up(sessions, records, [o for o in settled if not isinstance(o, Gap)])
    return stored


def followed(sessions: Sessions, records: Records, chunks: list[Chunk]) -> list[Record]:
    return [record for chunk in chunks for record in given_up(sessions, records, sessions.receive(chunk, 0.0))]


@given(
    st.sampled_from(RATES),
    st.lists(st.integers(50, 20_000), min_size=1, max_size=5),
    st.booleans(),
    st.integers(0, 100),
)
@settings(max_examples=25)
def test_session_resumes_from_any_record_to_the_sample(
    heldout: Speech, rate: int, sizes: list[int], offsets: bool, pick: int
) -> None:
    """From the cursor on, another daemon settles exactly what the first one had not."""
    chunks = spoken_chunks(heldout, rate, sizes, offsets=offsets)
    sessions = Sessions(SessionOptions(), lambda: "new", Tallies())
    stored = followed(sessions, Records(sessions.format), chunks)
    frames = sum(chunk.frames for chunk in chunks)
    at = stored[pick % len(stored)].checkpoint
    again = Sessions(SessionOptions(), lambda: "new", Tallies())
    again.resume(at, 0.0)
    rest = [trim_to(c, max(c.cursor, at.cursor)) for c in chunks if c.cursor.seq >= at.cursor.seq]
    records = Records(again.format, at)
    more = followed(again, records, rest) + given_up(again, records, again.end_all())
    positions = [at.position, *(r.checkpoint.position for r in more)]
    assert positions == sorted(positions)
    last = more[-1].checkpoint
    assert last.over
    assert last.account.received == last.position
    assert last.account.received == last.account.silent + sum(last.account.gap.values())
    # Without offsets, a restart in the middle of a chunk may round to another sample of a grid that is not 16 kHz.
    assert abs(last.position - round(frames * SAMPLE_RATE / rate)) <= (0 if offsets else 1)


def flushing_chunks(speech: Speech, sizes: list[int], flushes: list[int]) -> list[Chunk]:
    """The recording in chunks. Each flush is in a chunk with audio (0 or more), or in one of its own before a chunk."""
    chunks: list[Chunk] = []
    for spoken in spoken_chunks(speech, SAMPLE_RATE, sizes, offsets=True):
        if chunks and -len(chunks) in flushes:
            chunks.append(replace(spoken, pcm=b"", event=ChunkEvent.FLUSH, cursor=Cursor(3 * len(chunks) + 1, 0)))
        event = ChunkEvent.FLUSH if len(chunks) in flushes else None
        chunks.append(replace(spoken, event=event, cursor=Cursor(3 * len(chunks) + 1, 0)))
    return chunks


@given(
    st.lists(st.integers(2000, 20_000), min_size=1, max_size=5),
    st.lists(st.integers(-20, 20), min_size=1, max_size=6),
    st.lists(st.integers(1, 9), max_size=4),
)
@settings(max_examples=20)
def test_each_flush_is_answered_once_whatever_the_restarts(
    heldout: Speech, sizes: list[int], flushes: list[int], lives: list[int]
) -> None:
    """In order, and after everything before it. Each daemon stops after so many records; the last one does not."""
    chunks = flushing_chunks(heldout, sizes, flushes)
    stored: list[Record] = []
    for count in (*lives, None):
        sessions, rest, at = Sessions(SessionOptions(), lambda: "new", Tallies()), chunks, None
        if stored:
            at = stored[-1].checkpoint
            assert at is not None
            sessions.resume(at, 0.0)
            rest = [trim_to(c, max(c.cursor, at.cursor)) for c in chunks if c.cursor.seq >= at.cursor.seq]
        records = Records(sessions.format, at)
        more = followed(sessions, records, rest)
        stored += more[:count] if count else more + given_up(sessions, records, sessions.end_all())
    answered = [r.event for r in stored if isinstance(r.event, Flushed)]
    asked = [chunk for chunk in chunks if chunk.event is ChunkEvent.FLUSH]
    assert [event.cursor.seq for event in answered] == [chunk.cursor.seq + 1 for chunk in asked]
    assert [event.end for event in answered] == [chunk.offset + chunk.frames for chunk in asked]
    for record in stored:
        if isinstance(record.event, Flushed):
            assert record.event.end == record.checkpoint.position
