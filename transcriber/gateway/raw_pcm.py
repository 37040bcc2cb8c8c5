"""WebSockets that take raw PCM: Vosk's at `/`, and this project's own at `/v2/decode/stream/{model}`."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from transcriber.gateway.dialects import vosk
from transcriber.gateway.dialects.decode_stream import DecodeStream, ParameterError, QueueStatus, read_wishes
from transcriber.gateway.problems import Problem
from transcriber.gateway.routes import Accepted, SocketRoute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transcriber.gateway.dialects.dialect import Hearing
    from transcriber.gateway.parts import Parts
    from transcriber.gateway.routes import Opening
    from transcriber.gateway.workers import Worker

_KEY_FOLLOWS = "token"  # the subprotocol after which a browser sends its key


def register(parts: Parts) -> None:
    """Add both paths."""

    def open_vosk(_opening: Opening) -> Accepted:
        return Accepted(dialect=vosk.Vosk())

    def open_stream(opening: Opening) -> Accepted:
        try:
            wishes = read_wishes(opening.query)
        except ParameterError as error:
            raise Problem(400, str(error), code="invalid_value", param=error.name) from error
        model = opening.parameters["model"]
        hearing = _hearing(wishes.hearing, model)
        queue = (lambda: queue_status(parts.lanes.of(model).workers)) if wishes.queue_status else None
        subprotocol = _KEY_FOLLOWS if _KEY_FOLLOWS in opening.subprotocols else None
        return Accepted(dialect=DecodeStream(hearing, queue), model=model, subprotocol=subprotocol)

    parts.routes.add_socket(vosk.PATH, SocketRoute(open=open_vosk))
    parts.routes.add_socket("/v2/decode/stream/{model}", SocketRoute(open=open_stream))


@lru_cache(maxsize=256)
def _hearing(wished: Hearing, model: str) -> Hearing:
    """How a model is to hear. Thousands of clients share the few objects that there are."""
    return replace(wished, model=model)


def queue_status(workers: Sequence[Worker]) -> QueueStatus:
    """Sum up how busy the workers are. The wait is that of the least busy one, which gets what comes next."""
    speeds = [worker.rtf for worker in workers if worker.rtf is not None]
    return QueueStatus(
        pending=sum(worker.depth for worker in workers),
        capacity=sum(worker.capacity for worker in workers),
        estimated_wait=min((worker.estimated_wait for worker in workers), default=None),
        rtf=sum(speeds) / len(speeds) if speeds else None,
        workers=len(workers),
    )
