"""Answers the paths that take recordings in JSON, and tells what was done so far."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from transcriber.gateway.answer import JsonAnswer
from transcriber.gateway.dialects import seed
from transcriber.gateway.rest import receiving
from transcriber.gateway.routes import Call, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transcriber.gateway.parts import Parts
    from transcriber.gateway.rest.recordings import Recordings

_QUICK = 65_536  # bytes that are decoded at once; more would hold the event loop up


class Seed:
    """The handlers. They join JSON, recordings and answers."""

    def __init__(self, parts: Parts, recordings: Recordings) -> None:
        self._parts = parts
        self._recordings = recordings

    def register(self) -> None:
        """Add the paths."""
        add, shape = self._parts.routes.add, seed.in_seed_shape
        add("POST", "/transcribe", Route(handler=self._transcribe, works=True, shape=shape))
        add("POST", "/v2/decode/batch/{model}", Route(handler=self._decode, works=True, shape=shape))
        add("GET", "/stats", Route(handler=self._stats))

    async def _transcribe(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        begin = time.monotonic()
        body = await receiving.json_body(request, self._recordings.storage)
        raw, wish = seed.raw(body), seed.wish(body)
        text = await self._recordings.text(await self._bytes(seed.audio, body, "audio_data"), raw, wish, call)
        return JsonAnswer(seed.transcribed(call.id, text, time.monotonic() - begin))

    async def _decode(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        begin = time.monotonic()
        body = await receiving.json_body(request, self._recordings.storage)
        raw, wish = seed.raw(body, default=True), seed.wish(body, call.parameters["model"])
        text = await self._recordings.text(await self._bytes(seed.buffer, body, "audio_buffer"), raw, wish, call)
        return JsonAnswer(seed.decoded(body, text, time.monotonic() - begin))

    async def _stats(self, _request: web.BaseRequest, _call: Call) -> web.StreamResponse:
        tally = self._recordings.tally
        return web.json_response(seed.stats(tally.recordings, tally.processing, tally.latency, tally.elapsed))

    async def _bytes(self, read: Callable[[Mapping[str, Any]], bytes], body: dict[str, Any], field: str) -> bytes:
        """Take the audio out of a field, which nobody needs while the workers are waited for."""
        value = body.get(field)
        if not isinstance(value, str | list) or len(value) <= _QUICK:
            found = read(body)
        else:
            found = await asyncio.get_running_loop().run_in_executor(self._recordings.storage.pool, read, body)
        del body[field]
        return found
