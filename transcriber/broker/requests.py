"""Answers requests through NATS's services API: recordings on `transcribe.<name>`, and control of the daemon."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import nats.errors
from nats.micro import add_service
from nats.micro.request import Request, ServiceError
from nats.micro.service import DEFAULT_QUEUE_GROUP, EndpointConfig, Service, ServiceConfig

from transcriber.domain.errors import BrokerError, Rejection
from transcriber.protocol import incoming
from transcriber.protocol.routing import model_subject, request_name

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.micro.service import EndpointStats

    from transcriber.broker.connection import Connection
    from transcriber.protocol.outgoing import Message

log = logging.getLogger(__name__)


class Answerer(Protocol):
    """Answers one kind of request, for example by turning a recording into a transcript."""

    def admit(self, name: str, headers: Mapping[str, str], payload: bytes) -> Coroutine[Any, Any, Message]:
        """Check the request without waiting, and return a coroutine that makes the answer.

        Both may raise `Rejection`, whose reason is the services API's error code ("400", "503").
        """
        ...


@dataclass(frozen=True, slots=True)
class Control:
    """The requests by which an operator controls this daemon, and their subject."""

    subject: str
    answerer: Answerer


class RequestService:
    """Answers requests concurrently. A request that is refused at once counts as an error in `nats micro stats`.

    Control is a service of its own, so that `nats micro stats transcriber` counts only recordings.
    """

    def __init__(
        self,
        connection: Connection,
        answerer: Answerer,
        version: str,
        state: Callable[[], Mapping[str, Any]],
        control: Control | None = None,
    ) -> None:
        """`state`: what the service's statistics say of this worker, among it its `model`."""
        self._connection = connection
        self._answerer = answerer
        self._version = version
        self._control = control
        self._state = state
        self._for_model: Subscription | None = None  # requests for the model in use
        self._answering: set[asyncio.Task[None]] = set()
        self._services: list[Service] = []

    async def start(self) -> None:
        """Register. Raises `BrokerError` when the server forbids it."""
        endpoint = EndpointConfig(name="transcribe", subject=f"{incoming.TRANSCRIBE}.*", handler=self._on_recording)
        await self._add("transcriber", "Speech to text", endpoint, self._statistics)
        if self._control is not None:
            handler = partial(self._on_request, self._control.answerer, str)
            endpoint = EndpointConfig(name="model", subject=self._control.subject, handler=handler)
            await self._add("transcriber-control", "Another model for the speech to text service", endpoint)
        await self.follow_model()
        await self._connection.confirm()

    async def follow_model(self) -> None:
        """Take requests for the model in use, and no more for another. All workers with this model share them."""
        old, named = self._for_model, model_subject(self._state()["model"])
        subject = None if named is None else f"{named}.*"
        if old is not None and old.subject == subject:
            return
        self._for_model = None
        try:
            if subject is not None:
                subscribe = self._connection.subscribe_if_allowed
                self._for_model = await subscribe(subject, self._on_routed, DEFAULT_QUEUE_GROUP)
            if old is not None:
                await old.unsubscribe()
        except nats.errors.Error as error:  # NATS is away; what was subscribed is renewed when it is back
            log.warning("requests for the model alone may be missing: %s", str(error) or type(error).__name__)

    def _statistics(self, _endpoint: EndpointStats) -> dict[str, Any]:
        taken = None if self._for_model is None else self._for_model.subject.removesuffix(".*")
        return {**self._state(), "model_subject": taken}

    async def _add(
        self,
        name: str,
        description: str,
        endpoint: EndpointConfig,
        statistics: Callable[[EndpointStats], Any] | None = None,
    ) -> None:
        config = ServiceConfig(name=name, version=self._version, description=description, stats_handler=statistics)
        try:
            service = await add_service(self._connection.client, config)
        except nats.errors.Error as error:
            raise BrokerError(self._connection.options.address, str(error)) from error
        self._services.append(service)
        await service.add_endpoint(endpoint)

    async def stop(self) -> None:
        """Take no more requests."""
        if self._for_model is not None and self._connection.up:
            await self._for_model.unsubscribe()
        for service in self._services if self._connection.up else ():
            try:
                await service.stop()
            except nats.errors.Error as error:
                log.debug("the request service did not stop cleanly: %s", error)

    async def give_up(self) -> None:
        """Answer every open request with an error, at once."""
        answering = set(self._answering)
        for task in answering:
            task.cancel()
        if answering:
            await asyncio.wait(answering)

    async def _on_recording(self, request: Request) -> None:
        await self._on_request(self._answerer, request_name, request)

    async def _on_routed(self, message: Msg) -> None:
        """Take a request for the model in use: not an endpoint of the service, as their subjects cannot change."""
        request = Request(message)
        try:
            await self._on_recording(request)
        except ServiceError as refusal:
            await self._refuse(request, Rejection(refusal.code, refusal.description))

    async def _on_request(self, answerer: Answerer, name_of: Callable[[str], str], request: Request) -> None:
        if not request._msg.reply:  # noqa: SLF001 - nats-py's Request has no public way to tell, and fails when it answers
            log.warning("a request without a reply subject", extra={"subject": request.subject, "limited": True})
            return
        try:
            answer = answerer.admit(name_of(request.subject), request.headers or {}, request.data)
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
        """Make the answer. Raises `Rejection` on any failure."""
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
            raise Rejection("500", "the answer is larger than the server's max_payload")
        return message

    async def _refuse(self, request: Request, rejection: Rejection) -> None:
        try:
            await request.respond_error(rejection.reason, rejection.detail)
        except nats.errors.Error as error:
            log.warning("a request could not be answered: %s", str(error) or type(error).__name__)
