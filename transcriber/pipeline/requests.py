"""Transcribes whole recordings on request. They use the queue and thread of live audio, but are in no account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from transcriber.audio.stream import AudioStream
from transcriber.domain.chunks import AudioFormat, Chunk, Encoding
from transcriber.domain.containers import DECODABLE, name_of
from transcriber.domain.errors import RecordingError, Rejection
from transcriber.domain.results import Latency, Recognition, Segment, Transcript
from transcriber.domain.timeline import Closed, Gap, GapReason, Origin, Window
from transcriber.pipeline import verdict as verdicts
from transcriber.pipeline.producer_warnings import ProducerWarnings
from transcriber.protocol import incoming
from transcriber.protocol.headers import TASK, canonical, unknown
from transcriber.protocol.outgoing import Message, encode_reply
from transcriber.protocol.preferences import preferences_of
from transcriber.recording import Recording, is_recording
from transcriber.worker.jobs import Job, Outcome

if TYPE_CHECKING:
    from transcriber.audio.segmenter import StreamOptions
    from transcriber.domain.chunks import Preferences
    from transcriber.domain.measurements import Tallies
    from transcriber.pipeline.listeners import Listener, Observer
    from transcriber.pipeline.verdict import Verdict
    from transcriber.worker.queue import JobQueue

_BLOCK_SECS = 1.0  # of audio, about 2 ms of work; then other tasks of the event loop get their turn
_DECODED = ", ".join(sorted(DECODABLE))
_RETRY_SECS = 0.05  # between two attempts to queue a later window of a recording


class Transcribing(Protocol):
    """What answers say of the worker: its model's name, and whether that knows more languages than English."""

    model: str
    multilingual: bool


class RequestHandler:
    """Answers requests. A recording's windows are queued one at a time, so that it never fills the queue."""

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        queue: JobQueue,
        observer: Observer,
        listeners: Listener,
        tallies: Tallies,
        *,
        stream_options: StreamOptions,
        input_options: incoming.InputOptions,
        max_latency: float,
        max_payload: Callable[[], int],
        worker: Transcribing,
    ) -> None:
        self._queue = queue
        self._observer = observer
        self._listeners = listeners
        self._tallies = tallies
        self._stream_options = stream_options
        self._input = input_options
        self._max_latency = max_latency
        self._max_payload = max_payload
        self._worker = worker
        self._warnings = ProducerWarnings()

    def admit(self, name: str, headers: Mapping[str, str], payload: bytes) -> Coroutine[Any, Any, Message]:
        """Check the request, and return a coroutine that makes the answer. Raises `Rejection`: 400 or 503."""
        headers = canonical(headers)
        try:
            chunks = self._chunks(name, headers, payload)
        except (Rejection, RecordingError) as error:
            raise Rejection("400", getattr(error, "detail", str(error))) from error
        if self._queue.depth >= self._queue.capacity:
            raise Rejection("503", f"the queue is full ({self._queue.capacity} jobs)")
        return self._answer(name, incoming.tenant_of(headers), chunks)

    def _chunks(self, name: str, headers: Mapping[str, str], payload: bytes) -> Iterator[Chunk]:
        """Return the recording in chunks of a second, after all checks that need no decoding."""
        if not is_recording(payload):
            if (kind := name_of(payload, wide=incoming.audio_format(headers, self._input.format).wide)) is not None:
                raise Rejection("container", f"the payload is {kind}; allowed: raw PCM, or a file of {_DECODED}")
            plain = {k: v for k, v in headers.items() if k not in {incoming.EVENT, incoming.SESSION, incoming.OFFSET}}
            whole = incoming.parse(f"{incoming.TRANSCRIBE}.{name}", plain, payload, self._input)
            size = whole.format.frame_bytes * int(whole.format.rate * _BLOCK_SECS)
            parts: Iterator[bytes] = (payload[i : i + size] for i in range(0, len(payload), size))
            chosen = whole.format
        else:
            if len(payload) > self._input.max_chunk_bytes:
                limit = self._input.max_chunk_bytes
                raise Rejection("too_large", f"{len(payload)} bytes; AUDIO_MAX_CHUNK_BYTES={limit}")
            recording = Recording(payload)
            if recording.rate not in incoming.RATES or recording.channels not in incoming.CHANNEL_COUNTS:
                raise RecordingError("recording", f"{recording.rate} Hz, {recording.channels} channels is out of range")
            chosen = AudioFormat(Encoding.F32LE, recording.rate, recording.channels)
            parts = (block.tobytes() for block in recording.blocks(int(recording.rate * _BLOCK_SECS)))
        language, traceparent = incoming.language_of(headers), incoming.traceparent_of(headers)
        if (hint := incoming.unknown_language_of(headers)) is not None:
            self._warnings.unknown_language(name, hint)
        if (header := unknown(headers)) is not None:
            self._warnings.unknown_header(name, *header)
        wanted = self._preferences(headers)
        return (
            Chunk(name, chosen, part, language=language, traceparent=traceparent, preferences=wanted) for part in parts
        )

    def _preferences(self, headers: Mapping[str, str]) -> Preferences | None:
        """Return what the request prefers. Raises `Rejection` if that is not allowed, or the model cannot do it."""
        wanted = preferences_of(headers)
        for header, value, allowed in wanted.ignored if wanted is not None else ():
            raise Rejection("header", f"{header}={value!r}; allowed: {allowed}")
        if wanted is not None and wanted.translate and not self._worker.multilingual:
            raise Rejection("task", f"{TASK}=translate: {self._worker.model} knows English alone")
        return wanted

    async def _answer(self, name: str, tenant: str | None, chunks: Iterator[Chunk]) -> Message:
        begin = time.monotonic()
        origin = Origin(name, uuid4().hex, tenant)
        audio: AudioStream | None = None
        transcripts: list[Transcript] = []
        try:
            for chunk in chunks:
                audio = audio or AudioStream(origin, self._stream_options, chunk)
                for piece in audio.push(chunk):
                    if isinstance(piece, Window):
                        transcripts.append(await self._transcribe(piece, first=not transcripts))
                await asyncio.sleep(0)
        except RecordingError as error:
            raise Rejection("400", str(error)) from error
        if audio is not None:
            for piece in audio.flush(Closed.END):
                if isinstance(piece, Window):
                    transcripts.append(await self._transcribe(piece, first=not transcripts))
        end = audio.head if audio else 0
        if audio is not None and (counts := audio.counts.take()) is not None and counts.unmixed:
            self._warnings.unmixed([origin])
        model = (
            ", ".join({one.recognition.model: None for one in transcripts}) or self._worker.model
        )  # in order, without duplicates
        return encode_reply(_joined(origin, end, transcripts, model, time.monotonic() - begin), self._max_payload())

    async def _transcribe(self, window: Window, *, first: bool) -> Transcript:
        """Pass one window through the queue. After the first, a full queue means waiting, up to the maximum latency."""
        span = self._observer.start(window)
        try:
            verdict = await self._through_queue(window, patience=0.0 if first else self._max_latency)
        except asyncio.CancelledError:
            span.end(GapReason.SHUTDOWN, failed=True)
            raise
        self._listeners.on_verdict(verdict, span)
        match verdict.result:
            case Gap(reason=GapReason.QUEUE_FULL):
                raise Rejection("503", f"the queue is full ({self._queue.capacity} jobs)")
            case Gap(reason=reason):
                raise Rejection("500" if reason is GapReason.ENGINE_ERROR else "503", f"{reason}: {verdict.detail}")
            case transcript:
                return transcript

    async def _through_queue(self, window: Window, patience: float) -> Verdict:
        """Return the window's verdict: `queue_full` when the queue had no room for `patience` seconds."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def deliver(outcome: Outcome) -> None:
            if not done.done():  # otherwise the request was given up
                done.set_result(outcome)

        deadline = time.monotonic() + patience
        while not self._queue.try_put(Job(window=window, deliver=deliver)):
            if self._queue.closed or time.monotonic() >= deadline:
                return verdicts.gap(
                    window, GapReason.QUEUE_FULL, f"no room for a request in the queue of {self._queue.capacity} jobs"
                )
            await asyncio.sleep(_RETRY_SECS)
        self._tallies.jobs_enqueued.add(window.origin.stream)
        outcome = await done
        return verdicts.judge(outcome, now=time.monotonic())


def _joined(origin: Origin, end: int, transcripts: list[Transcript], model: str, end_to_end: float) -> Transcript:
    """Join the windows' transcripts into one. Its bounds count from the recording's first sample."""
    segments: list[Segment] = []
    for one in transcripts:
        segments += [segment.shifted(one.start) for segment in one.recognition.segments]
    language = transcripts[0].recognition.language if transcripts else ""
    latency = Latency(
        sum(o.latency.queue for o in transcripts), sum(o.latency.processing for o in transcripts), end_to_end
    )
    return Transcript(
        origin=origin,
        sequence=0,
        start=0,
        end=end,
        recognition=Recognition(tuple(segments), language, model),
        latency=latency,
        closed=Closed.END,
    )
