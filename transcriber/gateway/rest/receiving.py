"""Reads what a client sends: a form with a file, a bare body, or JSON."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

from transcriber.gateway.native import json_loads
from transcriber.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aiohttp import web

    from transcriber.gateway.rest.upload import Storage, Upload

T = TypeVar("T")

_CHUNK = 1 << 18  # bytes at a time of a file: four reads of aiohttp's
_FIELD_BYTES = 65_536  # of a form's field: a prompt has at most 1 kB, a reference of a speaker's voice is not for us
_FIELDS = 200
_WINDOW_SECS = 60.0  # in which the body must bring _LEAST_BYTES or its end; else the client is given up
_LEAST_BYTES = 1024  # 17 a second: a recorder that sends as it records sends 35 kB a minute in the thinnest of codecs
JSON_BYTES = 16 << 20  # of a JSON body, which is in memory several times


async def form(request: web.BaseRequest, upload: Upload) -> tuple[list[tuple[str, str]], bool]:
    """Read a form into `upload` (its field `file`) and a list of the other fields; and whether there was a file.

    Fields may come in any order. Raises `Problem`: 400 for a bad form, 413 for too much.
    """
    if not request.content_type.startswith("multipart/"):
        message = f"Content-Type={request.content_type[:100]!r}; allowed: multipart/form-data"
        raise Problem(400, message, code="invalid_content_type")
    upload.check(request.content_length)
    _welcome(request)
    fields: list[tuple[str, str]] = []
    found, pace = False, _Pace()
    try:
        reader = await request.multipart()
        while (part := await pace.keep(reader.next())) is not None:
            if not isinstance(part, aiohttp.BodyPartReader):
                raise Problem(400, "the form has a form within it", code="invalid_form")
            if part.name == "file" and not found:
                found = True
                while chunk := await pace.keep(part.read_chunk(_CHUNK)):
                    await upload.write(chunk)
            elif part.name and len(fields) < _FIELDS:
                fields.append((part.name, await _field(part, pace)))
    except (ValueError, RuntimeError, AssertionError, aiohttp.http_exceptions.HttpProcessingError) as error:
        raise Problem(400, f"the form cannot be read: {str(error)[:200]}", code="invalid_form") from error
    await upload.finish()
    return fields, found


async def _field(part: aiohttp.BodyPartReader, pace: _Pace) -> str:
    value = bytearray()
    while chunk := await pace.keep(part.read_chunk()):
        value += chunk
        if len(value) > _FIELD_BYTES:
            message = f"the field {part.name!r} has more than {_FIELD_BYTES} bytes"
            raise Problem(413, message, code="too_large", param=part.name)
    return value.decode("utf-8", "replace")


async def body(request: web.BaseRequest, upload: Upload) -> None:
    """Read a bare body into `upload`. Raises `Problem` 413."""
    upload.check(request.content_length)
    _welcome(request)
    pace = _Pace()
    while chunk := await pace.keep(request.content.read(_CHUNK)):
        await upload.write(chunk)
    await upload.finish()


async def json_body(request: web.BaseRequest, storage: Storage) -> dict[str, Any]:
    """Read a JSON object. Raises `Problem`: 400 for anything else, 413 for more than `JSON_BYTES`, 503 for no room."""
    _check_json(request.content_length or 0)
    data = await _all(request, storage)
    try:
        if len(data) <= _FIELD_BYTES:
            found = json_loads(data)
        else:  # takes long enough that others would wait
            found = await asyncio.get_running_loop().run_in_executor(storage.pool, json_loads, data)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is no JSON: {error}", code="invalid_json") from error
    finally:
        storage.memory += len(data)
    if not isinstance(found, dict):
        raise Problem(400, "the body is no JSON object", code="invalid_json")
    return found


async def _all(request: web.BaseRequest, storage: Storage) -> bytes:
    """Read a whole body, which then counts as kept. Raises `Problem`: 413 for too much, 503 for no room."""
    if request.content.is_eof():  # it came with the head, as most short ones do
        data = request.content.read_nowait()
        storage.take(len(data))
        return data
    _welcome(request)
    parts: list[bytes] = []
    size, pace = 0, _Pace()
    try:
        while chunk := await pace.keep(request.content.readany()):
            storage.take(len(chunk))
            size += len(chunk)
            parts.append(chunk)
            _check_json(size)
    except BaseException:
        storage.memory += size
        raise
    return b"".join(parts)


def _welcome(request: web.BaseRequest) -> None:
    """Ask for the body, if the client waits for that. Without an answer, curl waits for a second."""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class _Pace:
    """Waits for a body that comes fast enough. A client must not hold its connection with a byte now and then."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._due = asyncio.get_running_loop().time() + _WINDOW_SECS
        self._missing = _LEAST_BYTES

    async def keep(self, reading: Awaitable[T]) -> T:
        """Wait for more of the body. Raises `Problem` 408."""
        try:
            async with asyncio.timeout_at(self._due):
                came = await reading
        except TimeoutError:
            message = f"less than {_LEAST_BYTES} bytes of the body in {_WINDOW_SECS:g} s"
            raise Problem(408, message, code="timeout") from None
        self._missing -= len(came) if isinstance(came, bytes | bytearray) else 0
        if self._missing <= 0:
            self._begin()
        return came


def _check_json(size: int) -> None:
    if size > JSON_BYTES:
        message = f"the JSON has more than {JSON_BYTES} bytes; send long recordings to /v1/audio/transcriptions"
        raise Problem(413, message, code="too_large")
