"""Which requests the gateway answers itself: those that no two servers would read differently."""

from __future__ import annotations

import asyncio

import pytest

from transcriber.gateway.short import ShortRequest, read_short

TRANSPORT = asyncio.Transport()
BODY = b'{"audio_data": "UklGRg=="}'
LENGTH = b"Content-Length: %d" % len(BODY)


def read(*lines: bytes, body: bytes = BODY, first: bytes = b"POST /transcribe HTTP/1.1") -> ShortRequest | None:
    return read_short(b"\r\n".join([first, *lines]) + b"\r\n\r\n" + body, TRANSPORT)


def test_whole_request_is_read_with_its_headers_and_body() -> None:
    found = read(b"Host: a:1", b"X-API-Key:\t key ", b"Accept: */*", LENGTH)
    assert found is not None
    assert found.headers == {"host": "a:1", "x-api-key": "key", "accept": "*/*", "content-length": str(len(BODY))}
    assert (found.content_length, found.read_nowait()) == (len(BODY), BODY)


@pytest.mark.parametrize(
    "lines",
    [
        (b"Host: a",),
        (LENGTH,),
        (b"Host: a", LENGTH, LENGTH),
        (b"Host: a", b"Host: b", LENGTH),
        (b"Host: a", b"Content-Length: +%d" % len(BODY)),
        (b"Host: a", b"Content-Length: 0x1a"),
        (b"Host: a", b"Content-Length: %d, %d" % (len(BODY), len(BODY))),
        (b"Host: a", b"Content-Length: %d" % (len(BODY) - 1)),
        (b"Host: a", b"Content-Length: %d" % (len(BODY) + 1)),
        (b"Host: a", b"Content-Length : %d" % len(BODY)),
        (b"Host: a", b" folded", LENGTH),
        (b"Host: a", b"X: y\n folded", LENGTH),
        (b"Host: a", b"X: y\nTransfer-Encoding: chunked", LENGTH),
        (b"Host: a", b"X: y\rZ: z", LENGTH),
        (b"Host: a", b"X: \0", LENGTH),
        (b"Host: a", b"no colon", LENGTH),
        (b"Host: a", b": empty", LENGTH),
        (b"Host: a", b"Transfer-Encoding: chunked", LENGTH),
        (b"Host: a", b"transfer-encoding: identity", LENGTH),
        (b"Host: a", b"Content-Encoding: gzip", LENGTH),
        (b"Host: a", b"Expect: 100-continue", LENGTH),
        (b"Host: a", b"Connection: close", LENGTH),
        (b"Host: a", b"Upgrade: websocket", LENGTH),
        (b"Host: a", b"X: " + b"y" * 9000, LENGTH),
    ],
)
def test_unusual_request_is_left_to_aiohttp(lines: tuple[bytes, ...]) -> None:
    assert read(*lines) is None


@pytest.mark.parametrize(
    "first",
    [
        b"POST /transcribe HTTP/1.0",
        b"POST /transcribe?a HTTP/1.1",
        b"POST  /transcribe HTTP/1.1",
        b"post /transcribe HTTP/1.1",
        b"GET /transcribe HTTP/1.1",
        b"POST http://a/transcribe HTTP/1.1",
        b"\r\nPOST /transcribe HTTP/1.1",
    ],
)
def test_other_first_line_is_left_to_aiohttp(first: bytes) -> None:
    assert read(b"Host: a", LENGTH, first=first) is None


def test_part_of_a_request_is_left_to_aiohttp() -> None:
    """Wherever it is cut, and with the beginning of the next one."""
    whole = b"POST /transcribe HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (LENGTH, BODY)
    assert read_short(whole, TRANSPORT) is not None
    assert not [end for end in range(len(whole)) if read_short(whole[:end], TRANSPORT) is not None]
    assert read_short(whole + b"P", TRANSPORT) is None
    assert read_short(whole + whole, TRANSPORT) is None
