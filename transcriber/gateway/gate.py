"""The checks before anything is done for a request: its key, the page it comes from, and whether there is room."""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from transcriber.gateway import tokens
from transcriber.gateway.keys import NOBODY, Key, Limits
from transcriber.gateway.problems import Problem
from transcriber.http.status_page import StatusPage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transcriber.gateway.figures import Figures
    from transcriber.gateway.keys import Keys
    from transcriber.gateway.options import GatewayOptions
    from transcriber.gateway.tokens import Tokens
    from transcriber.gateway.workers import Worker

_IN_SUBPROTOCOL = "openai-insecure-api-key."  # with `realtime`: how OpenAI's clients send a key from a browser
_TOKEN = "token"  # noqa: S105 - the subprotocol after which Deepgram's clients send a key
_SCHEMES = {"bearer", "token"}
_SOON = 1.0  # seconds until another attempt, when nothing is known about how long it takes


class Workforce(Protocol):
    """The workers, and the way to them."""

    @property
    def all(self) -> Sequence[Worker]: ...
    @property
    def connected(self) -> bool: ...


class Gate:
    """Decides about each request before anything is done for it."""

    def __init__(
        self, options: GatewayOptions, keys: Keys, signed: Tokens, workforce: Workforce, figures: Figures
    ) -> None:
        self._options = options
        self._keys = keys
        self._tokens = signed
        self._workforce = workforce
        self._figures = figures
        self.nobody = Key(NOBODY, Limits())  # the caller of what needs no key
        self.closing = False

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Refuse pages of other sites that are not on the list. Raises `Problem` 403.

        What is no browser sends no Origin. A page of our own comes from the host that it asks. But a stranger can point
        a name of his own at this machine. So without keys, only names count that he cannot own.
        """
        origin = headers.get("origin")
        if origin is None or "*" in self._options.origins or origin.rstrip("/").lower() in self._options.origins:
            return
        host = headers.get("host", "")
        own = urlsplit(origin).netloc.lower() == host.lower() != ""
        if own and (self._keys.anyone is None or StatusPage.refusal(re.sub(r":\d*$", "", host)) is None):
            return
        text = f"pages of {origin[:160]!r} may not use this gateway: GATEWAY_ORIGINS lists those that may"
        raise Problem(403, text, code="origin_not_allowed")

    def caller(self, headers: Mapping[str, str], subprotocols: Sequence[str] = ()) -> Key:
        """Return the key that a request gives. Raises `Problem` 401, or 429 when it has made too many."""
        secret = _secret(headers, subprotocols)
        if secret is not None and secret.startswith(tokens.PREFIX):
            digest = self._tokens.digest_of(secret, time.time())
            key = None if digest is None else self._keys.by_digest(digest)
        else:
            key = self._keys.find(secret)
        if key is None:
            text = "no API key: send Authorization: Bearer KEY" if secret is None else "this API key is not known"
            raise Problem(401, text, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        key.request()
        return key

    def admit(self) -> None:
        """Check that a worker can take a recording. Raises `Problem` 503."""
        self._check_open()
        check_room(self._workforce.all)

    def _check_open(self) -> None:
        if self.closing:
            raise Problem(503, "the gateway is stopping", code="stopping", retry_after=_SOON)
        if not self._workforce.connected:
            raise Problem(503, "NATS is away", code="nats_away", retry_after=_SOON)

    def admit_socket(self, key: Key) -> None:
        """Check that another WebSocket may be opened. Raises `Problem` 429 or 503."""
        if self._figures.connections >= self._options.max_connections:
            text = f"GATEWAY_MAX_CONNECTIONS={self._options.max_connections} are open"
            raise Problem(503, text, code="too_many_connections", retry_after=_SOON)
        key.check_place()
        self._check_open()


def check_room(workers: Sequence[Worker]) -> None:
    """Check that one of these workers can take work. Raises `Problem` 503."""
    if not workers:
        raise Problem(503, "no worker is there", code="no_workers", retry_after=_SOON)
    if not any(worker.room for worker in workers):
        wait = min(worker.estimated_wait for worker in workers)
        raise Problem(503, "every worker is busy", code="overloaded", retry_after=max(_SOON, math.ceil(wait)))


def _secret(headers: Mapping[str, str], subprotocols: Sequence[str]) -> str | None:
    """The key in a request, in any of the places where clients put it."""
    scheme, _, rest = headers.get("authorization", "").strip().partition(" ")
    if scheme:
        return rest.strip() if scheme.lower() in _SCHEMES else scheme  # a bare key has no scheme
    for name in ("x-api-key", "api-key"):
        if headers.get(name):
            return headers[name].strip()
    for offered in subprotocols:
        if offered.startswith(_IN_SUBPROTOCOL):
            return offered.removeprefix(_IN_SUBPROTOCOL)
    if len(subprotocols) > 1 and subprotocols[0].lower() == _TOKEN:
        return subprotocols[1]
    return None
