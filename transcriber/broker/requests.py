"""Request/reply on `transcribe.<name>`, registered with NATS's services API."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

import nats.errors
from nats.micro import add_service
from nats.micro.request import Request, ServiceError
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from transcriber.broker import wire
from transcriber.errors import BrokerError, Rejection

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from transcriber.broker.connection import Connection
    from transcriber.broker.encoding import Message

log = logging.getLogger(__name__)


class Answerer(Protocol):
    """Turns a recording into a transcript."""

    def admit(self, name: str, headers: Mapping[str, str], payload: bytes) -> Coroutine[Any, Any, Message]:
        """Check the request and start on it without waiting; the coroutine gives the answer.

        Raises `Rejection` whose reason is the services API's error code ("400", "503"); so may the coroutine.
        """
        ...


class RequestService:
    """Answers requests side by side. What is refused at once counts as an error in `nats micro stats`."""

    def __init__(self, connection: Connection, answerer: Answerer, version: str) -> None:
        self._connection = connection
        self._answerer = answerer
        self._version = version
        self._answering: set[asyncio.Task[None]] = set()
        self._service: Service | None = None

    async def start(self) -> None:
        """Register. Raises `BrokerError` when the server forbids it."""
        config = ServiceConfig(name="transcriber", version=self._version, description="Speech to text")
        try:
            self._service = await add_service(self._connection.client, config)
        except nats.errors.Error as error:
            raise BrokerError(self._connection.options.address, str(error)) from error
        await self._service.add_endpoint(
            EndpointConfig(name="transcribe", subject=f"{wire.TRANSCRIBE}.*", handler=self._on_request)
        )
        await self._connection.confirm()

    async def stop(self) -> None:
        """Take no more requests."""
        if self._service is not None and self._connection.up:
            try:
                await self._service.stop()
            except nats.errors.Error as error:
                log.debug("the request service did not stop cleanly: %s", error)

    async def give_up(self) -> None:
        """Answer what has no answer yet with an error, at once."""
        answering = set(self._answering)
        for task in answering:
            task.cancel()
        if answering:
            await asyncio.wait(answering)

    async def _on_request(self, request: Request) -> None:
        if not request._msg.reply:  # noqa: SLF001 - nats-py's Request does not tell, and fails when it answers
            log.warning("a request without a reply subject", extra={"subject": request.subject, "limited": True})
            return
        try:
            name = wire.stream_of(request.subject)
            answer = self._answerer.admit(name, request.headers or {}, request.data)
        except Rejection as rejection:
            code = rejection.reason if rejection.reason.isdigit() else "400"
            raise ServiceError(code, rejection.detail) from None
        task = asyncio.create_task(self._answer(request, answer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, request: Request, answer: Coroutine[Any, Any, Message]) -> None:
        try:
            message = await self._made(answer)
            await request.respond(message.payload, dict(message.headers))
        except Rejection as rejection:
            await self._refuse(request, rejection)
        except nats.errors.Error as error:
            log.warning("a request could not be answered: %s", str(error) or type(error).__name__)

    async def _made(self, answer: Coroutine[Any, Any, Message]) -> Message:
        """Make the answer. Raises `Rejection`, whatever goes wrong."""
        try:
            message = await answer
        except asyncio.CancelledError:
            raise Rejection("503", "the daemon is stopping") from None
        except Rejection:
            raise
        except Exception as error:
            log.exception("a request failed")
            raise Rejection("500", "internal error; see the daemon's log") from error
        if message.size > self._connection.max_payload:
            raise Rejection("500", "the transcript is larger than the server's max_payload")
        return message

    async def _refuse(self, request: Request, rejection: Rejection) -> None:
        try:
            await request.respond_error(rejection.reason, rejection.detail)
        except nats.errors.Error as error:
            log.warning("a request could not be answered: %s", str(error) or type(error).__name__)
