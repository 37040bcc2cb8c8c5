"""One decision about a window, and the same answer from every sink."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from harness import Speech, s16
from outbox import PLENTY, Outbox, parts
from scripted import finish, take

from transcriber.audio.segmenter import StreamOptions
from transcriber.audio.session import SessionOptions
from transcriber.domain.chunks import AudioFormat, Chunk, Cursor, Encoding
from transcriber.domain.errors import Rejection
from transcriber.domain.measurements import Tallies
from transcriber.domain.results import HeldBack, Recognition, Segment, Transcript, Word
from transcriber.domain.timeline import Gap, GapReason, Origin, Window
from transcriber.pipeline import verdict as verdicts
from transcriber.pipeline.durable import DurablePipeline
from transcriber.pipeline.interim import Interim
from transcriber.pipeline.listeners import Counter, Listeners, Logger
from transcriber.pipeline.live import LivePipeline
from transcriber.pipeline.replay import Replay, ReplayOptions
from transcriber.pipeline.requests import RequestHandler
from transcriber.pipeline.verdict import judge
from transcriber.protocol.incoming import InputOptions
from transcriber.protocol.outgoing import Message
from transcriber.worker.engine import WhisperOptions
from transcriber.worker.jobs import Job, Outcome
from transcriber.worker.queue import JobQueue

SAID, MADE_UP = "the red train", "Thank you."


def segment(text: str) -> Segment:
    return Segment(
        text=text, start=0, end=8000, confidence=0.9, words=tuple(Word(word, 0, 8000, 0.9) for word in text.split())
    )


def recognition(*said: str, held: Iterable[str] = ()) -> Recognition:
    back = tuple(HeldBack(segment(text), "low_confidence+sign_off") for text in held)
    return Recognition(tuple(map(segment, said)), "en", "m", back)


@dataclass(frozen=True)
class Case:
    """The worker's outcome for a window."""

    recognition: Recognition | None = None
    reason: GapReason | None = None
    passes: int = 1

    def outcome(self, window: Window) -> Outcome:
        detail = "" if self.recognition else "it broke"
        return Outcome(
            window=window,
            recognition=self.recognition,
            reason=self.reason,
            detail=detail,
            enqueued=time.monotonic(),
            queued=0.1,
            processing=0.2,
            passes=self.passes,
        )


@dataclass
class Told:
    """What the outside hears of a window, and what is counted."""

    text: str | None = None
    gap: str | None = None
    suppressed: list[tuple[str, str]] = field(default_factory=list)
    dropped: int = 0
    repeated: int = 0

    @classmethod
    def of(cls, messages: Iterable[Message], tallies: Tallies) -> Told:
        told = cls(dropped=tallies.jobs_dropped.grand_total(), repeated=tallies.decodes_repeated.grand_total())
        for body in (json.loads(message.payload) for message in messages):
            match body["type"]:
                case "final":
                    told.text = body["text"]
                case "gap":
                    told.gap = body["reason"]
                case "suppressed":
                    told.suppressed.append((body["text"], body["reason"]))
        return told


class Stored:
    """Stands in for the transcript stream."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def store(self, stream: str, message: Message) -> None:
        assert stream == "s"
        self.messages.append(message)


def chunk(speech: Speech) -> Chunk:
    """A recording as one message, which is stored."""
    sent = Chunk("s", AudioFormat(Encoding.S16LE, 16_000, 1), s16(speech.samples), session="x")
    sent.cursor = Cursor(1, 0)
    return sent


def work(queue: JobQueue, case: Case) -> None:
    """Do the worker's part for one window."""
    job = take(queue)
    assert job is not None
    finish(queue)
    job.deliver(case.outcome(job.window))


async def live(speech: Speech, case: Case) -> Told:
    outbox = Outbox()
    made = parts(outbox)
    pipeline = LivePipeline(made)
    pipeline.receive(chunk(speech), 0.0)
    pipeline.end_all()
    work(made.queue, case)
    return Told.of(outbox.messages, made.tallies)


async def durable(speech: Speech, case: Case) -> Told:
    stored, made = Stored(), parts(Outbox())
    pipeline = DurablePipeline(made, stored, {})  # type: ignore[arg-type]
    pipeline.receive(chunk(speech), 0.0)
    pipeline._receiver.end_all()
    work(made.queue, case)
    await pipeline.stored()
    return Told.of(stored.messages, made.tallies)


async def replay(speech: Speech, case: Case) -> Told:
    options = ReplayOptions(
        sessions=SessionOptions(), input=InputOptions(), whisper=WhisperOptions(path=Mock(), threads=1), prefix="again"
    )
    replaying = Replay(SimpleNamespace(max_payload=PLENTY), options)  # type: ignore[arg-type]

    async def outcome(window: Window) -> Outcome:
        return case.outcome(window)

    replaying._outcome = outcome  # type: ignore[method-assign] - no engine
    replaying._receiver.receive(chunk(speech), 0.0)
    replaying._receiver.end_all()
    told = Told.of([message async for message in replaying._encode_outputs()], Tallies())
    return replace(told, dropped=int(told.gap is not None), repeated=int(case.passes > 1))  # it has no metrics


async def reply(speech: Speech, case: Case, caplog: pytest.LogCaptureFixture) -> Told:
    queue, tallies = JobQueue(10), Tallies()
    recordings = RequestHandler(
        queue,
        parts(None).observer,
        Listeners(Counter(tallies), Logger()),
        tallies,
        stream_options=StreamOptions(),
        input_options=InputOptions(),
        max_latency=20,
        max_payload=lambda: PLENTY,
        worker=SimpleNamespace(model="m", multilingual=False),
    )
    headers = {"audio_encoding": "pcm_s16le", "audio_sample_rate": "16000"}
    answering = asyncio.create_task(recordings.admit("s", headers, s16(speech.samples)))
    job = await asyncio.to_thread(take, queue)
    assert job is not None
    job.deliver(case.outcome(job.window))
    told = Told()
    try:
        told.text = json.loads((await answering).payload)["text"]
    except Rejection as rejection:
        told.gap = rejection.detail.partition(":")[0]
    lines = [record for record in caplog.records if record.getMessage() == "text suppressed"]
    told.suppressed = [(record.text, record.reason) for record in lines]  # type: ignore[attr-defined]
    told.dropped, told.repeated = tallies.jobs_dropped.grand_total(), tallies.decodes_repeated.grand_total()
    return told


Sink = Callable[[Speech, Case], Awaitable[Told]]
CASES = {
    "text": (Case(recognition(SAID)), Told(text=SAID)),
    "text after two passes": (Case(recognition(SAID), passes=2), Told(text=SAID, repeated=1)),
    "text and held-back text": (
        Case(recognition(SAID, held=[MADE_UP])),
        Told(text=SAID, suppressed=[(MADE_UP, "low_confidence+sign_off")]),
    ),
    "held back text alone": (
        Case(recognition(held=[MADE_UP]), passes=2),
        Told(text="", suppressed=[(MADE_UP, "low_confidence+sign_off")], repeated=1),
    ),
    "nothing heard": (Case(recognition()), Told(text="")),
    "a broken engine": (Case(reason=GapReason.ENGINE_ERROR), Told(gap="engine_error", dropped=1)),
    "too late": (Case(reason=GapReason.DEADLINE), Told(gap="deadline", dropped=1)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sink", ["live", "durable", "replay", "reply"])
async def test_every_sink_gives_out_the_same_verdict(
    heldout: Speech, sink: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Live, stored, replay and reply agree on text, gap, held-back text and counts."""
    (case, expected), speech = CASES[name], heldout.cut(0, 1)
    sinks: dict[str, Sink] = {"live": live, "durable": durable, "replay": replay}
    told = await (sinks[sink](speech, case) if sink in sinks else reply(speech, case, caplog))
    assert told == expected


@pytest.mark.parametrize("name", CASES)
async def test_interim_text_is_the_verdicts(heldout: Speech, name: str) -> None:
    """A partial shows the text of the verdict, and is missing where the verdict has none."""
    (case, expected), outbox = CASES[name], Outbox()
    made = parts(outbox)
    length = len(heldout.cut(0, 1).samples)
    partials = Interim(
        made.sessions, made.queue, outbox, made.tallies, interval=length // 4, max_payload=lambda: PLENTY
    )  # type: ignore[arg-type]
    made.sessions.receive(chunk(heldout.cut(0, 2)), 0.0)
    partials.offer("s")
    work(made.queue, case)
    texts = [json.loads(message.payload)["text"] for message in outbox.messages]
    assert texts == ([expected.text] if expected.text else [])


def window() -> Window:
    return Window(origin=Origin("s", "x"), sequence=3, start=16_000, end=48_000, samples=Mock())


def test_a_text_that_is_too_old_becomes_a_gap() -> None:
    """Its age counts at the moment of publishing, and only where a latency was promised."""
    outcome = replace(Case(recognition(SAID, held=[MADE_UP])).outcome(window()), enqueued=100.0)
    assert isinstance(judge(outcome, now=105.0, max_latency=5.0).result, Transcript)
    late = judge(outcome, now=105.1, max_latency=5.0)
    assert late.result == Gap(origin=outcome.window.origin, start=16_000, end=48_000, reason=GapReason.DEADLINE)
    assert (late.detail, late.suppressed) == ("finished after 5.1 s", ())
    assert isinstance(judge(outcome, now=10**6).result, Transcript)


def test_bounds_of_held_back_text_are_on_the_timeline() -> None:
    """The segment begins with the window, and the window a second after the session."""
    (held,) = judge(Case(recognition(held=[MADE_UP])).outcome(window()), now=time.monotonic()).suppressed
    assert (held.start, held.end) == (16_000, 24_000)


def test_a_gap_takes_the_windows_bounds_and_cursor() -> None:
    """Stored audio goes on after the gap."""
    dropped = verdicts.gap(replace(window(), cursor=Cursor(7, 8)), GapReason.SHUTDOWN, "no time")
    assert dropped.result == Gap(
        origin=Origin("s", "x"), start=16_000, end=48_000, reason=GapReason.SHUTDOWN, cursor=Cursor(7, 8)
    )
    assert (dropped.detail, dropped.passes) == ("no time", 0)


async def test_a_full_queue_drops_a_live_window_at_once(heldout: Speech) -> None:
    """Queued windows stay. The next one becomes a gap with its own bounds, and the account is whole at the end."""
    outbox = Outbox()
    made = parts(outbox)
    made.queue.capacity = 1
    taken = Job(window=window(), deliver=Mock())
    assert made.queue.try_put(taken)
    pipeline = LivePipeline(made)
    pipeline.receive(chunk(heldout.cut(0, 1)), 0.0)
    pipeline.end_all()
    told = Told.of(outbox.messages, made.tallies)
    assert (told.gap, told.dropped, told.text) == ("queue_full", 1, None)
    assert json.loads(outbox.messages[-1].payload)["type"] == "ended"


async def test_undelivered_windows_become_gaps_at_the_end(heldout: Speech) -> None:
    """The window in the engine and those that wait become gaps. A later outcome is not published as well."""
    outbox = Outbox()
    made = parts(outbox)
    pipeline = LivePipeline(made)
    pipeline.receive(chunk(heldout.cut(0, 1)), 0.0)
    pipeline.end_all()
    job = take(made.queue)
    assert job is not None
    pipeline.give_up()
    job.deliver(Case(recognition(SAID)).outcome(job.window))
    told = Told.of(outbox.messages, made.tallies)
    assert (told.gap, told.dropped, told.text) == ("shutdown", 1, None)
