"""Answers OpenAI's paths for recordings and models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from transcriber.gateway.dialects import openai_answers, openai_rest
from transcriber.gateway.dialects.recording import gaps_header, joined
from transcriber.gateway.problems import Problem, in_openai_shape
from transcriber.gateway.rest import receiving
from transcriber.gateway.rest.recordings import Recorded
from transcriber.gateway.rest.upload import Upload
from transcriber.gateway.routes import Call, Route

if TYPE_CHECKING:
    from transcriber.gateway.parts import Parts
    from transcriber.gateway.rest.recordings import Answered, Recordings

KEEP_ALIVE_SECS = 15.0  # proxies close a connection on which nothing comes for 60 s

T = TypeVar("T")


class OpenAI:
    """The handlers. They join forms, recordings and answers."""

    def __init__(self, parts: Parts, recordings: Recordings) -> None:
        self._parts = parts
        self._recordings = recordings

    def register(self) -> None:
        """Add the paths."""
        add = self._parts.routes.add
        add("POST", "/v1/audio/transcriptions", Route(handler=self._transcribe, works=True))
        add("POST", "/v1/audio/translations", Route(handler=self._translate, works=True))
        add("GET", "/v1/models", Route(handler=self._models))
        add("GET", "/v1/models/{model}", Route(handler=self._model))

    async def _transcribe(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        return await self._answer(request, call, translate=False)

    async def _translate(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        return await self._answer(request, call, translate=True)

    async def _models(self, _request: web.BaseRequest, _call: Call) -> web.StreamResponse:
        return web.json_response(openai_rest.models(await self._known()))

    async def _model(self, _request: web.BaseRequest, call: Call) -> web.StreamResponse:
        return web.json_response(openai_rest.model(call.parameters["model"], await self._known()))

    async def _known(self) -> list[str]:
        return [worker.model for worker in await self._parts.workers.ask()]

    async def _answer(self, request: web.BaseRequest, call: Call, *, translate: bool) -> web.StreamResponse:
        async with Upload(self._recordings.storage) as upload:
            fields, found = await receiving.form(request, upload)
            options = openai_rest.options(fields, translate=translate)
            if not found:
                raise openai_rest.missing_file()
            recorded = Recorded(upload=upload, wish=options.wish, call=call)
            async with aclosing(self._recordings.transcribe(recorded)) as answers:
                if options.stream:
                    return await _stream(request, call, openai_answers.Events(options), answers)
                text = joined([answered.text async for answered in answers])
        kind, body = openai_answers.answer(options, text)
        headers = {"x-transcriber-gaps": gaps_header(text.gaps)} if text.gaps else None
        return web.Response(text=body, content_type=kind, charset="utf-8", headers=headers)


async def _stream(
    request: web.BaseRequest, call: Call, events: openai_answers.Events, answers: AsyncIterator[Answered]
) -> web.StreamResponse:
    """Send each part's text as it comes. The head waits for the first, so that a refusal can still have its status."""
    head = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", **call.headers}
    response = web.StreamResponse(headers=head)

    async def send(data: bytes | None) -> None:
        if data is not None:
            if not response.prepared:
                await response.prepare(request)
            await response.write(data)

    texts = []
    try:
        async with aclosing(patiently(answers, KEEP_ALIVE_SECS)) as steps:
            async for answered in steps:
                if answered is None:
                    await send(openai_answers.KEEP_ALIVE)
                    continue
                texts.append(answered.text)
                await send(events.delta(answered.text))
        await send(events.done(joined(texts)))
    except Problem as problem:
        if not response.prepared:
            raise
        await send(events.failed(in_openai_shape(problem)))
    await response.write_eof()
    return response


async def patiently(source: AsyncIterator[T], secs: float) -> AsyncGenerator[T | None]:
    """Yield what `source` yields, and None whenever that takes `secs` seconds more."""
    while True:
        step: asyncio.Future[T] = asyncio.ensure_future(anext(source))
        try:
            while not (await asyncio.wait({step}, timeout=secs))[0]:
                yield None
        finally:
            if not step.done():  # given up meanwhile
                step.cancel()
                await asyncio.wait({step})
        try:
            item = step.result()
        except StopAsyncIteration:
            return
        yield item
