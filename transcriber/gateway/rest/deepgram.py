"""Answers Deepgram's path for recordings."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

from transcriber.gateway.dialects import deepgram_rest
from transcriber.gateway.dialects.recording import RecordingText, gaps_header, joined
from transcriber.gateway.live_speech import in_deepgram_shape
from transcriber.gateway.rest import receiving
from transcriber.gateway.rest.recordings import Recorded, Recordings
from transcriber.gateway.rest.upload import Upload
from transcriber.gateway.routes import Call, Route

if TYPE_CHECKING:
    from transcriber.gateway.parts import Parts


class Deepgram:
    """The handler. It joins a query, a body and the channels' texts."""

    def __init__(self, parts: Parts, recordings: Recordings) -> None:
        self._parts = parts
        self._recordings = recordings

    def register(self) -> None:
        """Add the path."""
        route = Route(handler=self._listen, works=True, shape=in_deepgram_shape)
        self._parts.routes.add("POST", "/v1/listen", route)

    async def _listen(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        options = deepgram_rest.options({name: request.query.getall(name) for name in request.query})
        if request.content_type == "application/json":
            raise deepgram_rest.refused_url()
        async with Upload(self._recordings.storage, hashed=True) as upload:
            await receiving.body(request, upload)
            channels = await self._channels(Recorded(upload=upload, wish=options.wish, call=call, raw=options.raw))
            about = deepgram_rest.About(request_id=call.id, sha256=upload.sha256, created=created)
        gaps = sorted((gap for text in channels for gap in text.gaps), key=lambda gap: gap.start)
        headers = {"dg-request-id": call.id}
        if gaps:
            headers["x-transcriber-gaps"] = gaps_header(gaps)
        return web.json_response(deepgram_rest.answer(options, about, channels), headers=headers)

    async def _channels(self, recorded: Recorded) -> list[RecordingText]:
        """The text of each channel, or of their mix."""
        parts: dict[int, list[RecordingText]] = {0: []}
        async with aclosing(self._recordings.transcribe(recorded)) as answers:
            async for answered in answers:
                parts.setdefault(answered.channel, []).append(answered.text)
        return [joined(parts[channel]) for channel in sorted(parts)]
