"""JSON, base64 and the event loop, by compiled packages where the extra `gateway` has brought them.

Without them the standard library does the same: where there is no wheel, the gateway only needs more CPU.
"""

from __future__ import annotations

import asyncio
import base64
import json
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def _installed(name: str) -> Any:  # noqa: ANN401 - a module
    return import_module(name) if find_spec(name) is not None else None


_orjson, _pybase64, _uvloop = map(_installed, ("orjson", "pybase64", "uvloop"))


def json_loads(data: bytes | str) -> Any:  # noqa: ANN401 - whatever it holds
    """Read JSON. Raises `ValueError`, or `RecursionError` for what is nested too deeply."""
    return json.loads(data) if _orjson is None else _orjson.loads(data)


def json_dumps(body: object) -> str:
    """Write JSON without spaces, in any letters."""
    if _orjson is None:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    text: str = _orjson.dumps(body).decode()
    return text


def base64_decode(text: str | bytes) -> bytes:
    """Read base64. Raises `ValueError` for any other letter, and for a length that it cannot have."""
    if _pybase64 is None:
        return base64.b64decode(text, validate=True)
    data: bytes = _pybase64.b64decode(text, validate=True)
    return data


def runner() -> asyncio.Runner:
    """Return what runs the gateway's event loop."""
    return asyncio.Runner() if _uvloop is None else asyncio.Runner(loop_factory=_uvloop.new_event_loop)
