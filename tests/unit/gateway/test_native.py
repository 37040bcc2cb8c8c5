"""JSON and base64 by compiled packages and by the standard library: both read and write the same."""

from __future__ import annotations

import base64
import json

import pytest

from transcriber.gateway import native


@pytest.fixture(params=["compiled", "standard"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Without the packages, both ways are the standard library's."""
    if request.param == "standard":
        for name in ("_orjson", "_pybase64", "_uvloop"):
            monkeypatch.setattr(native, name, None)
    return request.param


@pytest.mark.usefixtures("way")
def test_json_is_written_short_and_in_any_letters() -> None:
    body = {"text": 'grüße \U0001f3a4 "x"\n', "start": 0.1, "gaps": [], "more": None, "number": 3}
    written = native.json_dumps(body)
    assert written == json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    assert native.json_loads(written) == native.json_loads(written.encode()) == body


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("text", [b"", b"{", b'{"a": 1', b"\xff", b"'a'", b'{"a": 1} x', b"[" * 1_000_000])
def test_text_that_is_no_json_is_told_as_such(text: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        native.json_loads(text)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 3244])
def test_base64_is_read_whole(size: int) -> None:
    data = bytes(n % 256 for n in range(size))
    assert native.base64_decode(base64.b64encode(data).decode()) == data


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("text", ["abc", "ab c", "ab\n=", "a?==", "====", "äöü=", "AAAA" * 5000 + "-"])
def test_text_that_is_no_base64_is_told_as_such(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        native.base64_decode(text)


@pytest.mark.usefixtures("way")
def test_event_loop_runs() -> None:
    async def answer() -> int:
        return 7

    with native.runner() as run:
        assert run.run(answer()) == 7
