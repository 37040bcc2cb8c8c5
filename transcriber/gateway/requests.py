"""Has whole recordings transcribed: one request, one transcript."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transcriber.domain.errors import RequestError
from transcriber.gateway.native import json_loads
from transcriber.protocol import incoming
from transcriber.protocol.routing import model_subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.broker.asking import Asking
    from transcriber.gateway.workers import WorkersView

ANSWER_SECS = 60.0  # three times the default L_max, within which a worker answers or refuses


class Requests:
    """Sends recordings to `transcribe.<name>`. Each goes to one of the workers: one that has the model, or any."""

    def __init__(self, asking: Asking, workers: WorkersView) -> None:
        self._asking = asking
        self._workers = workers

    @property
    def max_payload(self) -> int:
        """Bytes of a request, with its headers, that the server takes."""
        return self._asking.max_payload

    async def transcribe(
        self,
        name: str,
        headers: Mapping[str, str],
        payload: bytes,
        patience: float = ANSWER_SECS,
        *,
        model: str = "",
    ) -> dict[str, Any]:
        """Return the transcript of one recording, in the shape of a `final` (P-7).

        `model`: the client's word for it; if no worker has it, any worker will do (P-39).
        `name`: [A-Za-z0-9_-]{1,64}. `headers`: as in P-3, such as Audio-Encoding and Audio-Language. `payload`: raw PCM
        or a file; with the headers it must fit into the server's max_payload. Raises `RequestError` with `code`:

        - 400: the input is bad;
        - 413: it is larger than max_payload;
        - 500: the engine failed, or the answer is no transcript;
        - 503: the queue is full, no worker is there, or NATS is away. Worth another attempt, except after a deadline;
        - 504: no answer within `patience` seconds.
        """
        wanted = model_subject(model) if model else None
        there = wanted is not None and any(worker.model_subject == wanted for worker in self._workers.all)
        subject = wanted if there else incoming.TRANSCRIBE
        answer = await self._asking.ask(f"{subject}.{name}", payload, headers, patience)
        try:
            transcript = json_loads(answer)
        except ValueError:
            transcript = None
        if not isinstance(transcript, dict):
            raise RequestError(500, "the worker's answer is no transcript")
        return transcript
