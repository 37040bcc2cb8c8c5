"""What a new connection meets first: its head decides between HTTP, a WebSocket and a refusal."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, cast
from uuid import UUID, uuid4

from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from transcriber.gateway import head as heads
from transcriber.gateway.bridge import Bridge
from transcriber.gateway.gate import check_room
from transcriber.gateway.problems import Problem, body_of, in_openai_shape
from transcriber.gateway.routes import Accepted, Opening
from transcriber.gateway.socket import Socket
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from transcriber.gateway.gate import Gate
    from transcriber.gateway.head import Head
    from transcriber.gateway.keys import Key
    from transcriber.gateway.problems import Shape
    from transcriber.gateway.routes import Routes
    from transcriber.gateway.surroundings import Surroundings
    from transcriber.telemetry.gateway import CallSpan, GatewayTelemetry

log = logging.getLogger(__name__)

_HEAD_SECS = 5.0  # for the first head: a client that is slower than that is none
_SPARE = 32  # connections of HTTP above the limit, so that probes are answered when all places are taken
_UPGRADE = b"upgrade"
_NO_ID = UUID(int=0)
_codec_log = logging.getLogger("transcriber.gateway.frames")
_codec_log.setLevel(logging.WARNING)  # websockets tells of every connection that ends


class Http(Protocol):
    """The connections that are not WebSockets."""

    @property
    def count(self) -> int: ...
    def protocol(self) -> asyncio.Protocol: ...


class Client(Protocol):
    """A client's connection, whatever it is made of."""

    @property
    def bridge(self) -> Bridge | None: ...
    def tick(self, now: float) -> None: ...
    def abort(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Caller:
    """Whose connection it is, its id, and the name of its path in figures."""

    key: Key
    request_id: str
    label: str


class Entrance:
    """Opens WebSockets, and knows those that are open."""

    def __init__(
        self,
        gate: Gate,
        routes: Routes,
        shared: Surroundings,
        telemetry: GatewayTelemetry,
        http: Http,
    ) -> None:
        """`http` serves the connections that are not WebSockets."""
        self._telemetry = telemetry
        self._gate = gate
        self._routes = routes
        self._shared = shared
        self._http = http
        self.sockets: dict[Client, tuple[Key, CallSpan | None]] = {}
        self.fronts: set[asyncio.Transport] = set()  # connections without a head so far

    def upgrade(self, head: Head, transport: asyncio.Transport) -> Socket | None:
        """Answer a request for a WebSocket: open it, or refuse with one write."""
        request_id = uuid4().hex
        shape: Shape = in_openai_shape
        try:
            route, parameters = self._routes.find_socket(head.path)
            shape = route.shape
            self._gate.check_origin(head.headers)
            key = self._gate.caller(head.headers, head.subprotocols)
            self._gate.admit_socket(key)
            accepted = route.open(
                Opening(
                    path=head.path,
                    query=head.query,
                    headers=head.headers,
                    subprotocols=head.subprotocols,
                    request_id=request_id,
                    parameters=parameters,
                )
            )
            check_room(self._shared.lanes.may_take(accepted.model))
        except Problem as problem:
            self._refuse(transport, problem, shape, request_id)
            return None
        except Exception:
            log.exception("a WebSocket could not be opened", extra={"path": head.path})
            self._refuse(transport, Problem(500, "internal error", code="internal_error"), shape, request_id)
            return None
        label = head.path if not parameters else head.path.rpartition("/")[0]
        return self._open(head, transport, accepted, _Caller(key, request_id, label))

    def _open(self, head: Head, transport: asyncio.Transport, accepted: Accepted, client: _Caller) -> Socket | None:
        codec = ServerProtocol(
            subprotocols=None if accepted.subprotocol is None else [accepted.subprotocol],  # type: ignore[list-item] # a NewType
            state=State.OPEN,  # the head has been read already
            max_size=accepted.dialect.max_message,
            logger=_codec_log,
        )
        codec.id = _NO_ID  # each would have one of its own, which nobody reads
        answer = codec.accept(Request(head.target, Headers(head.headers), head.method, head.version))
        answer.headers["x-request-id"] = client.request_id
        if answer.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._shared.figures.refused[answer.status_code] += 1
            transport.write(answer.serialize())
            transport.close()
            return None
        answer.headers.update(accepted.headers)
        transport.write(answer.serialize())
        socket = Socket(transport, codec, self._shared.figures, self._left)
        given = incoming.traceparent_of({"traceparent": head.headers.get("traceparent", "")})
        span = self._telemetry.begin(f"WebSocket {client.label}", given)
        bridge = Bridge(accepted.dialect, socket, self._shared, client.key, span.traceparent)
        self.enter(socket, client.key, client.label, span)
        transport.set_protocol(socket)
        socket.connect(bridge)
        return socket

    def serve(self, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """Return the protocol for a connection that is no WebSocket; refuse it with one write if there are too many."""
        most = self._shared.figures.max_connections
        if len(self.sockets) + self._http.count >= most + _SPARE:
            text = f"GATEWAY_MAX_CONNECTIONS={most} are open"
            problem = Problem(503, text, code="too_many_connections", retry_after=1.0)
            self._refuse(transport, problem, in_openai_shape, "")
            return None
        return self._http.protocol()

    def enter(self, socket: Client, key: Key, path: str, span: CallSpan | None = None) -> None:
        """Count a client that was let in, and call it about once a second; `path` as in figures."""
        self.sockets[socket] = key, span
        key.open += 1
        self._shared.figures.connections += 1
        self._shared.figures.opened[path] += 1

    def _left(self, socket: Socket) -> None:
        found = self.leave(socket)
        if found is not None:
            found.end(socket.close_code)

    def leave(self, socket: Client) -> CallSpan | None:
        """A client has left. Returns its span."""
        if (found := self.sockets.pop(socket, None)) is not None:
            key, span = found
            key.open -= 1
            self._shared.figures.connections -= 1
            return span
        return None

    def _refuse(self, transport: asyncio.Transport, problem: Problem, shape: Shape, request_id: str) -> None:
        self._shared.figures.refused[problem.status] += 1
        write_refusal(transport, problem, shape, request_id)


class Front(asyncio.Protocol):
    """A connection until its first head is there. Then another protocol takes over."""

    __slots__ = ("_data", "_entrance", "_timer", "_transport")

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._data = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._entrance.fronts.add(self._transport)
        self._timer = asyncio.get_running_loop().call_later(_HEAD_SECS, self._too_slow)

    def connection_lost(self, _error: Exception | None) -> None:
        self._done()

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(heads.END)
        if (len(self._data) if end < 0 else end) > heads.LONGEST_HEAD:
            self._done()
            text = f"the head of the request has more than {heads.LONGEST_HEAD} bytes"
            write_refusal(self._transport, Problem(431, text, code="headers_too_large"), in_openai_shape, "")
            return
        if end < 0:
            return
        self._done()
        end += len(heads.END)
        if not self._upgrades(end) and (protocol := self._entrance.serve(self._transport)) is not None:
            self._hand_over(protocol, self._data)

    def _too_slow(self) -> None:
        """Say so, unless the client has said nothing: a browser opens connections that it may need."""
        self._done()
        if not self._data:
            self._transport.abort()
            return
        text = f"the head of the request did not come within {_HEAD_SECS:g} s"
        write_refusal(self._transport, Problem(408, text, code="timeout"), in_openai_shape, "")

    def _upgrades(self, end: int) -> bool:
        """Open a WebSocket if the head asks for one."""
        if _UPGRADE not in self._data[:end].lower():
            return False
        try:
            head = heads.parse(self._data[:end])
        except ValueError:
            return False  # HTTP's parser says what is wrong
        if not head.upgrades:
            return False
        socket = self._entrance.upgrade(head, self._transport)
        if socket is not None and len(self._data) > end:
            socket.data_received(self._data[end:])
        return True

    def _hand_over(self, protocol: asyncio.Protocol, data: bytes) -> None:
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def _done(self) -> None:
        self._entrance.fronts.discard(self._transport)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def write_refusal(transport: asyncio.Transport, problem: Problem, shape: Shape, request_id: str) -> None:
    """Answer in one write, and close."""
    body = body_of(problem, shape)
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "x-request-id": request_id,
        **problem.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    phrase = HTTPStatus(problem.status).phrase
    transport.write(f"HTTP/1.1 {problem.status} {phrase}\r\n{lines}\r\n".encode("latin-1", "replace") + body)
    transport.close()
