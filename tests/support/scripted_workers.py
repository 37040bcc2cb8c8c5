"""Workers on a real server whose answers a test writes: refusals, silence, and texts that tell what was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Self

import nats
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, ServiceConfig


class Asked(NamedTuple):
    """One request for a transcript; `number` counts from 0."""

    number: int
    headers: Mapping[str, str]
    pcm: bytes


class Refusal(Exception):  # noqa: N818 - what a worker answers
    """An answer with an error."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


Script = Callable[[Asked], Awaitable[str]]  # returns the text, or raises a `Refusal`


def final(text: str, seconds: float) -> dict[str, Any]:
    """A worker's answer: one segment over all of the audio, its words one after the other."""
    words = text.split()
    step = seconds / max(1, len(words))
    each = [{"word": word, "start": i * step, "end": (i + 1) * step, "confidence": 0.9} for i, word in enumerate(words)]
    segment = {"start": 0.0, "end": seconds, "text": text, "confidence": 0.9, "words": each}
    return {
        "v": 1,
        "type": "final",
        "text": text,
        "language": "en",
        "confidence": 0.9,
        "model": "scripted",
        "segments": [segment] if text else [],
        "latency": {"queue": 0.0, "processing": 0.01, "end_to_end": 0.01},
    }


class ScriptedWorker:
    """Answers as the script says. Several share the requests, as real ones do."""

    def __init__(self, url: str, script: Script) -> None:
        self._url = url
        self._script = script
        self._answering: set[asyncio.Task[None]] = set()
        self.asked: list[Asked] = []

    async def __aenter__(self) -> Self:
        self._nats = await nats.connect(self._url)
        self._service = await add_service(self._nats, ServiceConfig(name="transcriber", version="1.0.0"))
        endpoint = EndpointConfig(name="transcribe", subject="transcribe.*", handler=self._on_request)
        await self._service.add_endpoint(endpoint)
        await self._nats.flush()
        return self

    async def die(self) -> None:
        """Be gone without a word, as a process that is killed."""
        self._nats._transport.close()
        self._nats._status = self._nats.CLOSED  # or it would come back
        await self._nats.close()

    async def __aexit__(self, *_: object) -> None:
        for task in self._answering:
            task.cancel()
        if self._nats.is_connected:
            await self._service.stop()
            await self._nats.close()

    async def _on_request(self, request: Request) -> None:
        asked = Asked(len(self.asked), request.headers or {}, request.data)
        self.asked.append(asked)
        task = asyncio.create_task(self._answer(request, asked))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, request: Request, asked: Asked) -> None:
        try:
            text = await self._script(asked)
        except Refusal as refusal:
            await request.respond_error(str(refusal.code), refusal.detail)
        else:
            seconds = len(asked.pcm) / 2 / int(asked.headers["Audio-Sample-Rate"])
            await request.respond(json.dumps(final(text, seconds)).encode())
