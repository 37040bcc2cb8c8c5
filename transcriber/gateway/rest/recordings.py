"""Has recordings transcribed: cut into parts, spread over the workers, and given back in order."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transcriber.domain.errors import RecordingError, RequestError
from transcriber.domain.timeline import GapReason
from transcriber.gateway.dialects.recording import RecordingText, Wish, heard, unheard
from transcriber.gateway.problems import Problem, problem_of
from transcriber.gateway.rest.reading import Limits, Part, PartReader, whole
from transcriber.gateway.rest.upload import Storage
from transcriber.protocol import headers as names

if TYPE_CHECKING:
    from transcriber.domain.chunks import AudioFormat
    from transcriber.gateway.parts import Parts
    from transcriber.gateway.rest.upload import Upload
    from transcriber.gateway.routes import Call

log = logging.getLogger(__name__)

_THREADS = 4  # that decode: as many files at a time, each for one part
_PARTS = 64  # on their way to workers, of all recordings: 61 MB
# A worker takes a part's windows one at a time, so a second part keeps it busy while the first one's answer travels.
_FOR_EACH_WORKER = 2
_MOST_OF_ONE = 16  # parts of one recording on their way: 15 MB
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between two attempts, before jitter
# A worker is faster than speech. It may have others to serve, so it gets twice as long, and a start for short parts.
_ANSWER_SECS, _ANSWER_OF_AUDIO = 10.0, 2.0
_ENGINE_ATTEMPTS = 3  # of a part on which engines fail: another worker may have another model
_REFUSED = {400, 413}  # no other answer comes to a further attempt
_PROMPT_CHARACTERS = 600  # Whisper reads the last 224 tokens, of three or four characters each
_BREAKS = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")  # what a header's line cannot hold
_REASONS = {413: "too_large", 500: "engine_error", 503: "unavailable", 504: "timeout"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recording to transcribe. `raw`: the format of an upload that is no file."""

    upload: Upload
    wish: Wish
    call: Call
    raw: AudioFormat | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """A part's text, its channel, and how many channels there are."""

    channel: int
    channels: int
    text: RecordingText


@dataclass(slots=True)
class _Progress:
    """Of one recording: until when it may go on without an answer, and what went wrong."""

    patience: float
    deadline: float = 0.0
    answered: int = 0
    lost: int = 0
    processing: float = 0.0
    error: RequestError | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def extend(self) -> None:
        self.deadline = time.monotonic() + self.patience

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()


class Tally:
    """Counts the recordings that were transcribed since the start. Times in seconds."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.recordings = 0
        self.processing = 0.0
        self.latency = 0.0

    def add(self, processing: float, latency: float) -> None:
        self.recordings += 1
        self.processing += processing
        self.latency += latency

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begin


class Recordings:
    """Transcribes recordings. Memory is bounded by the parts that are on their way, however long the recordings are.

    A part that a worker refuses or does not answer goes to a worker again, with jitter. It is given up when none of the
    recording's parts was answered for `options.patience` seconds.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._under_way = asyncio.Semaphore(_PARTS)
        self._pool = ThreadPoolExecutor(_THREADS, "recordings")
        self.storage = Storage(self._pool, parts.options.max_upload)
        self.tally = Tally()

    async def transcribe(self, recorded: Recorded) -> AsyncGenerator[Answered]:
        """Yield the parts' texts in order, with a gap where a part is lost. Close it with `aclosing`.

        Raises `Problem`: 400 and 415 for bad audio, 429 for too much, 503 where all is lost.
        """
        begin = time.monotonic()
        progress = _Progress(self._parts.options.patience, headers=_headers(recorded))
        progress.extend()
        limits = Limits(max_payload=self._parts.requests.max_payload, max_audio=self._parts.options.max_audio)
        each = recorded.wish.each_channel
        if (only := whole(recorded.upload, recorded.raw, limits, each_channel=each)) is not None:
            _charge(recorded, only, first=True)
            yield Answered(0, 1, await self._heard(only, recorded, progress))
        else:
            reader = PartReader(recorded.upload, recorded.raw, limits, each_channel=each)
            try:
                async with aclosing(self._spread(reader, recorded, progress)) as spread:
                    async for answered in spread:
                        yield answered
            finally:
                await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._pool, reader.close))
        if progress.lost and not progress.answered and progress.error is not None:
            raise problem_of(_in_words_of_http(progress.error), self._wait())
        self.tally.add(progress.processing, time.monotonic() - begin)

    async def _spread(self, reader: PartReader, recorded: Recorded, progress: _Progress) -> AsyncGenerator[Answered]:
        """Send the parts, several at a time; yield their texts in order."""
        waiting: deque[tuple[Part, asyncio.Task[RecordingText]]] = deque()
        more = True
        try:
            while more or waiting:
                if more and len(waiting) < self._at_a_time():
                    part = await self._next(reader)
                    if part is None:
                        more = False
                        continue
                    _charge(recorded, part, first=part.start == 0)
                    waiting.append((part, asyncio.create_task(self._released(part, recorded, progress))))
                    continue
                part, task = waiting.popleft()
                yield Answered(part.channel, reader.channels, await task)
        finally:
            for _, task in waiting:
                task.cancel()
            await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)

    async def _next(self, reader: PartReader) -> Part | None:
        """Cut the next part, once there is room for it."""
        await self._under_way.acquire()
        part = None
        try:
            part = await asyncio.get_running_loop().run_in_executor(self._pool, reader.read)
        except RecordingError as error:
            raise Problem(400, str(error), code="invalid_audio", param="file") from error
        finally:
            if part is None:
                self._under_way.release()
        return part

    async def _released(self, part: Part, recorded: Recorded, progress: _Progress) -> RecordingText:
        try:
            return await self._heard(part, recorded, progress)
        finally:
            self._under_way.release()

    async def _heard(self, part: Part, recorded: Recorded, progress: _Progress) -> RecordingText:
        """Ask until there is an answer, or no time left."""
        headers = progress.headers | {
            names.ENCODING: part.format.encoding.value,
            names.RATE: str(part.format.rate),
            names.CHANNELS: str(part.format.channels),
        }
        patience = _ANSWER_SECS + _ANSWER_OF_AUDIO * (part.end - part.start)
        attempts = 0
        while True:
            attempts += 1
            try:
                answer = await self._parts.requests.transcribe(recorded.call.caller.tenant, headers, part.pcm, patience)
                text = heard(answer, part.start, part.end)
            except RequestError as error:
                lost = error
            except (KeyError, TypeError, ValueError):
                lost = RequestError(500, "the worker's answer is no transcript")
            else:
                progress.answered += 1
                progress.processing += text.processing
                self._parts.figures.audio += text.duration
                progress.extend()
                return text
            pause = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2**attempts) * random.uniform(0.5, 1)  # noqa: S311 - no secret
            hopeless = lost.code in _REFUSED or (lost.code == 500 and attempts >= _ENGINE_ATTEMPTS)  # noqa: PLR2004
            if hopeless or progress.left < pause:
                self._parts.figures.lost += part.end - part.start
                return _given_up(part, lost, progress)
            await asyncio.sleep(pause)

    def _at_a_time(self) -> int:
        """How many parts of one recording may be on their way."""
        return min(_MOST_OF_ONE, _FOR_EACH_WORKER * max(1, len(self._parts.workers.all)))

    def _wait(self) -> float:
        """Seconds until a worker probably has room."""
        return min((worker.estimated_wait for worker in self._parts.workers.all), default=1.0)


def _charge(recorded: Recorded, part: Part, *, first: bool) -> None:
    """Take a part off the key's allowance, which the first one needs. Raises `Problem` 429."""
    caller, seconds = recorded.call.caller, part.end - part.start
    if first:
        caller.charge(seconds)
    else:
        caller.sent(seconds)


def _given_up(part: Part, error: RequestError, progress: _Progress) -> RecordingText:
    progress.lost += 1
    progress.error = error
    log.warning("%.1f s of a recording were not transcribed: %s", part.end - part.start, error, extra={"limited": True})
    return unheard(part.start, part.end, _reason(error))


def _in_words_of_http(error: RequestError) -> RequestError:
    """No answer is no place, too: both say that another attempt may succeed."""
    return RequestError(503, error.detail) if error.code == 504 else error  # noqa: PLR2004


def _reason(error: RequestError) -> str:
    """The daemon's reason for a gap, where it tells one; else a word for the code."""
    told = error.detail.partition(":")[0]
    if told in set(GapReason):
        return told
    if "queue is full" in error.detail:
        return GapReason.QUEUE_FULL
    return _REASONS.get(error.code, "refused")


def _headers(recorded: Recorded) -> dict[str, str]:
    """The headers that all parts have."""
    wish, call = recorded.wish, recorded.call
    chosen = {
        names.LANGUAGE: wish.language,
        names.TENANT: call.caller.tenant,
        names.TRACEPARENT: call.traceparent,
        "Audio-Prompt": _line(wish.prompt) if wish.prompt else None,
        "Audio-Task": "translate" if wish.translate else None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _line(prompt: str) -> str:
    """The end of a prompt, which is all that a model reads, as a header can hold it."""
    return _BREAKS.sub(" ", prompt).strip()[-_PROMPT_CHARACTERS:]
