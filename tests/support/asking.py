"""Asks the service for a recording's words, as any client of NATS does."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from harness import Client, schema


class Answer(NamedTuple):
    """An error of the services API, or a body."""

    code: str | None
    error: str | None
    body: dict[str, Any]


async def ask(client: Client, payload: bytes, name: str = "call", headers: dict[str, str] | None = None) -> Answer:
    """Send one request; an answer without an error is checked against the schema."""
    reply = await client.nats.request(f"transcribe.{name}", payload, timeout=30, headers=headers)
    told = reply.headers or {}
    code = told.get("Nats-Service-Error-Code")
    if code is not None:
        assert reply.data == b""
        return Answer(code, told["Nats-Service-Error"], {})
    assert told == {"Content-Type": "application/json"}
    body = json.loads(reply.data)
    schema().validate(body)
    return Answer(None, None, body)
