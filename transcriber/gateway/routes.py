"""Which path is answered by what: HTTP requests by a handler, WebSockets by a dialect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from transcriber.gateway.problems import Problem, Shape, in_openai_shape

if TYPE_CHECKING:
    from aiohttp import web

    from transcriber.gateway.dialects.dialect import Dialect


T = TypeVar("T")


class Caller(Protocol):
    """The owner of the key that was given. Without keys, everybody is one caller."""

    @property
    def tenant(self) -> str:
        """[A-Za-z0-9_-]{1,32}; goes out as Audio-Tenant and begins the names of streams."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the key in hexadecimal; empty without keys."""
        ...

    @property
    def may_send(self) -> bool:
        """Whether its streams may send audio now."""
        ...

    def sent(self, seconds: float) -> None:
        """Count audio of a stream."""
        ...

    def charge(self, seconds: float) -> None:
        """Take seconds of audio off the key's allowance. Raises `Problem` 429 when there is none left."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP request, apart from what `request` itself says. `parameters`: what stood for `{name}` in the path."""

    caller: Caller
    id: str  # goes out as x-request-id
    traceparent: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)  # to put on an answer that the handler itself prepares


Handler = Callable[["web.BaseRequest", Call], Awaitable["web.StreamResponse"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path of HTTP. `free`: needs no key. `works`: needs a worker, so it is refused (503) while none has room.

    `shape` puts a `Problem` into the words of the path's protocol.
    """

    handler: Handler
    free: bool = False
    works: bool = False
    shape: Shape = in_openai_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a client asks for that opens a WebSocket. A field of the query may occur several times."""

    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    subprotocols: tuple[str, ...]
    request_id: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A dialect for this connection, the subprotocol to accept, and more headers of the answer.

    `model`: what the client asks for, empty if any will do. None: it may say so later.
    """

    dialect: Dialect
    model: str | None = None
    subprotocol: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Opener = Callable[[Opening], Accepted]  # raises `Problem` to refuse with a status of HTTP


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketRoute:
    """A path of WebSockets. `open` is called only when a key and a place are there."""

    open: Opener
    shape: Shape = in_openai_shape


class Routes:
    """All paths. One that holds `{name}` fits any text without `/` in its place; it must be the last part."""

    def __init__(self) -> None:
        self._http: dict[str, dict[str, Route]] = {}
        self._sockets: dict[str, SocketRoute] = {}

    def add(self, method: str, path: str, route: Route) -> None:
        """Answer `method` (GET also for HEAD) on `path`."""
        self._http.setdefault(path, {})[method] = route

    def add_socket(self, path: str, route: SocketRoute) -> None:
        """Answer WebSockets on `path`, which may also have a `Route`."""
        self._sockets[path] = route

    @property
    def paths(self) -> list[str]:
        return sorted({*self._http, *self._sockets})

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route and what stood for the name in its path. Raises `Problem` 404 or 405."""
        found = _find(self._http, path)
        if found is None:
            kind = "is for WebSockets" if _find(self._sockets, path) else "is no path of this gateway"
            raise Problem(404, f"{path[:160]!r} {kind}", code="not_found")
        methods, parameters = found
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            detail = f"{method[:16]} is not allowed for {path[:160]!r}: {allowed}"
            raise Problem(405, detail, code="method_not_allowed", headers={"Allow": allowed})
        return route, parameters

    def find_socket(self, path: str) -> tuple[SocketRoute, dict[str, str]]:
        """Return the route and what stood for the name in its path. Raises `Problem` 404."""
        found = _find(self._sockets, path)
        if found is None:
            raise Problem(404, f"{path[:160]!r} takes no WebSockets", code="not_found")
        return found


def _find(table: Mapping[str, T], path: str) -> tuple[T, dict[str, str]] | None:
    if (plain := table.get(path)) is not None:
        return plain, {}
    before, _, last = path.rpartition("/")
    for pattern, value in table.items():
        head, brace, name = pattern.partition("{")
        if brace and last and head == f"{before}/":
            return value, {name.rstrip("}"): last}
    return None
