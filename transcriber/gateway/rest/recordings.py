"""Has recordings transcribed: cut into parts, spread over the workers, and given back in order."""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.domain.errors import RecordingError, RequestError
from transcriber.gateway.dialects.recording import RecordingText, Wish, heard, joined
from transcriber.gateway.problems import Problem, problem_of
from transcriber.gateway.rest.progress import Progress, Tally
from transcriber.gateway.rest.reading import Limits, Part, PartReader, whole
from transcriber.gateway.rest.upload import Storage, Upload
from transcriber.protocol import headers as names
from transcriber.protocol.preferences import LONGEST_PROMPT

if TYPE_CHECKING:
    from transcriber.domain.chunks import AudioFormat
    from transcriber.gateway.parts import Parts
    from transcriber.gateway.routes import Call

_THREADS = 4  # that decode: as many files at a time, each for one part
_WRITERS = 2  # threads that write uploads: they must not wait for those that decode
_PARTS = 64  # on their way to workers, of all recordings: 61 MB
# A worker takes a part's windows one at a time, so a second part keeps it busy while the first one's answer travels.
_FOR_EACH_WORKER = 2
_MOST_OF_ONE = 16  # parts of one recording on their way: 15 MB
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between two attempts, before jitter
# A worker is faster than speech. It may have others to serve, so it gets twice as long, and a start for short parts.
_ANSWER_SECS, _ANSWER_OF_AUDIO = 10.0, 2.0
_LOOK_SECS = 1.0  # between two looks at which workers are there
_ENGINE_ATTEMPTS = 3  # of a part on which engines fail: another worker may have another model
_REFUSED = {400, 413}  # no other answer comes to a further attempt
_BREAKS = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")  # what a header's line cannot hold


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


class Recordings:
    """Transcribes recordings. Memory is bounded by the parts that are on their way, however long the recordings are.

    A part that a worker refuses or does not answer goes to a worker again, with jitter. It is given up when none of the
    recording's parts was answered for `options.patience` seconds. All methods raise `Problem`: 400 and 415 for bad
    audio, 429 for too much, 503 where all is lost.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._under_way = asyncio.Semaphore(_PARTS)
        self._pool = ThreadPoolExecutor(_THREADS, "recordings")
        writers, options = ThreadPoolExecutor(_WRITERS, "uploads"), parts.options
        self.storage = Storage(writers, options.max_upload, disk=options.uploads)
        self._last_limits = Limits(max_payload=0, max_audio=options.max_audio)
        self.tally = Tally()

    async def text(self, audio: bytes, raw: AudioFormat | None, wish: Wish, call: Call) -> RecordingText:
        """Return the text of a recording that is in memory."""
        if (only := whole(audio, raw, self._limits)) is not None:
            return await self._only(only, self._begin(wish, call))
        async with Upload(self.storage) as upload:
            await upload.write(audio)
            await upload.finish()
            recorded = Recorded(upload=upload, wish=wish, call=call, raw=raw)
            async with aclosing(self.transcribe(recorded)) as answers:
                return joined([answered.text async for answered in answers])

    async def transcribe(self, recorded: Recorded) -> AsyncGenerator[Answered]:
        """Yield the parts' texts in order, with a gap where a part is lost. Close it with `aclosing`."""
        progress = self._begin(recorded.wish, recorded.call)
        data, each = recorded.upload.data, recorded.wish.each_channel
        only = None if data is None else whole(data, recorded.raw, self._limits, each_channel=each)
        if only is not None:
            yield Answered(0, 1, await self._only(only, progress))
            return
        reader = PartReader(recorded.upload, recorded.raw, self._limits, each_channel=each)
        try:
            async with aclosing(self._spread(reader, progress)) as spread:
                async for answered in spread:
                    yield answered
        finally:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._pool, reader.close))
        self._complete(progress)

    @property
    def _limits(self) -> Limits:
        size = self._parts.requests.max_payload
        if size != self._last_limits.max_payload:  # another server may have another
            self._last_limits = Limits(max_payload=size, max_audio=self._parts.options.max_audio)
        return self._last_limits

    def _begin(self, wish: Wish, call: Call) -> Progress:
        return Progress(
            call=call, headers=_headers(wish, call), patience=self._parts.options.patience, model=wish.model
        )

    def _complete(self, progress: Progress) -> None:
        """Count a recording. Raises `Problem` if all of it was lost."""
        if (error := progress.all_lost) is None:
            self.tally.add(progress)
            return
        if error.code == 504:  # noqa: PLR2004 - no answer is no place, too: another attempt may succeed
            error = RequestError(503, error.detail)
        raise problem_of(error, min((worker.estimated_wait for worker in self._parts.workers.all), default=1.0))

    async def _only(self, part: Part, progress: Progress) -> RecordingText:
        progress.charge(part)
        text = await self._heard(part, progress, watched=False)
        self._complete(progress)
        return text

    async def _spread(self, reader: PartReader, progress: Progress) -> AsyncGenerator[Answered]:
        """Send the parts, several at a time; yield their texts in order."""
        waiting: deque[tuple[Part, asyncio.Task[RecordingText]]] = deque()
        more = True
        watching = asyncio.create_task(self._watch(progress))
        try:
            while more or waiting:
                if more and len(waiting) < self._at_a_time():
                    if (sent := await self._next(reader, progress)) is None:
                        more = False
                    else:
                        waiting.append(sent)
                    continue
                part, task = waiting.popleft()
                yield Answered(part.channel, reader.channels, await task)
        finally:
            open_ = [watching, *(task for _, task in waiting)]
            for each in open_:
                each.cancel()
            await asyncio.gather(*open_, return_exceptions=True)

    async def _next(self, reader: PartReader, progress: Progress) -> tuple[Part, asyncio.Task[RecordingText]] | None:
        """Cut the next part and send it, once there is room. None at the end."""
        await self._under_way.acquire()
        task = None
        try:
            part = await asyncio.get_running_loop().run_in_executor(self._pool, reader.read)
            if part is None:
                return None
            progress.charge(part)
            task = asyncio.create_task(self._heard(part, progress, watched=True))
            task.add_done_callback(lambda _: self._under_way.release())  # also if it is cancelled before it begins
        except RecordingError as error:
            raise Problem(400, str(error), code="invalid_audio", param="file") from error
        finally:
            if task is None:
                self._under_way.release()
        return part, task

    async def _heard(self, part: Part, progress: Progress, *, watched: bool) -> RecordingText:
        """Ask until there is an answer, or no time left. `watched`: `progress.hurry` ends the first wait."""
        headers = {
            **progress.headers,
            names.ENCODING: part.format.encoding.value,
            names.RATE: str(part.format.rate),
            names.CHANNELS: str(part.format.channels),
        }
        name, patience = progress.call.caller.tenant, _ANSWER_SECS + _ANSWER_OF_AUDIO * part.seconds
        attempts = 0
        while True:
            attempts += 1
            try:
                asking = self._parts.requests.transcribe(name, headers, part.pcm, patience, model=progress.model)
                if watched and attempts == 1:  # once, or workers that seem to come and go would never be waited for
                    answer = await progress.until_hurried(asking)
                else:
                    answer = await asking
                text = heard(answer, part.start, part.end)
            except RequestError as error:
                lost = error
            except TimeoutError:
                lost = RequestError(504, "a worker is gone")
            except (KeyError, TypeError, ValueError):
                lost = RequestError(500, "the worker's answer is no transcript")
            else:
                progress.heard(text)
                self._parts.figures.audio += part.seconds
                return text
            pause = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2**attempts) * random.uniform(0.5, 1)  # noqa: S311 - no secret
            hopeless = lost.code in _REFUSED or (lost.code == 500 and attempts >= _ENGINE_ATTEMPTS)  # noqa: PLR2004
            if hopeless or progress.left < pause:
                self._parts.figures.lost += part.seconds
                return progress.lost(part, lost)
            await asyncio.sleep(pause)

    async def _watch(self, progress: Progress) -> None:
        """Ask again for what a worker may have had that is gone. Which one has which part is not known."""
        known = {worker.id for worker in self._parts.workers.all}
        while True:
            await asyncio.sleep(_LOOK_SECS)
            there = {worker.id for worker in await self._parts.workers.ask()}
            if known - there:
                progress.hurry()
            known = there

    def _at_a_time(self) -> int:
        """How many parts of one recording may be on their way."""
        return min(_MOST_OF_ONE, _FOR_EACH_WORKER * max(1, len(self._parts.workers.all)))


def _headers(wish: Wish, call: Call) -> dict[str, str]:
    """The headers that all parts have."""
    chosen = {
        names.LANGUAGE: wish.language,
        names.TENANT: call.caller.tenant,
        names.TRACEPARENT: call.traceparent,
        names.PROMPT: _line(wish.prompt) if wish.prompt else None,
        names.TASK: "translate" if wish.translate else None,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _line(prompt: str) -> str:
    """The end of a prompt, which is all that counts (P-35), as a header can hold it."""
    return _BREAKS.sub(" ", prompt).strip()[-LONGEST_PROMPT:]
