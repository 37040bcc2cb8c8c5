"""The WebSockets of Deepgram and OpenAI: opens a connection's dialect by its path, query and headers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from transcriber.gateway.dialects.deepgram import Deepgram
from transcriber.gateway.dialects.deepgram_query import listening
from transcriber.gateway.dialects.openai_realtime import Realtime
from transcriber.gateway.problems import Problem
from transcriber.gateway.routes import Accepted, SocketRoute

if TYPE_CHECKING:
    from transcriber.gateway.parts import Parts
    from transcriber.gateway.routes import Opening

_REALTIME, _BETA = "realtime", "openai-beta.realtime-v1"  # subprotocols of OpenAI's clients
_TOKENS = "token", "bearer"  # subprotocols of Deepgram's clients: how a key is meant that comes as one


def register(parts: Parts) -> None:
    """Add the paths."""
    parts.routes.add_socket("/v1/listen", SocketRoute(open=open_deepgram, shape=in_deepgram_shape))
    parts.routes.add_socket("/v1/realtime", SocketRoute(open=open_realtime))


def open_deepgram(opening: Opening) -> Accepted:
    """Open a connection of a Deepgram client. Raises `Problem` 400."""
    created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    asked = listening(opening.query)
    return Accepted(
        dialect=Deepgram(asked, opening.request_id, created),
        model=asked.model or "",
        subprotocol=next((name for name in _TOKENS if name in opening.subprotocols), None),
        headers={"dg-request-id": opening.request_id},
    )


def open_realtime(opening: Opening) -> Accepted:
    """Open a connection of an OpenAI Realtime client. Raises `Problem` 400."""
    intent = opening.query.get("intent", ["transcription"])[-1]
    if intent != "transcription":
        raise Problem(
            400, f"intent={intent[:80]!r} is not allowed: transcription", code="invalid_value", param="intent"
        )
    beta = _BETA in opening.subprotocols or "realtime=v1" in opening.headers.get("openai-beta", "")
    model = opening.query.get("model", [""])[-1] or None
    return Accepted(
        dialect=Realtime(opening.request_id, model=model, beta=beta),
        model=model,
        subprotocol=_REALTIME if _REALTIME in opening.subprotocols else None,
    )


def in_deepgram_shape(problem: Problem) -> dict[str, Any]:
    """`{"err_code", "err_msg"}`; the id of the request is in the answer's header."""
    return {"err_code": problem.code or "ERROR", "err_msg": problem.message}
