"""Where NATS is and who we are there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from transcriber.broker.credentials import Credentials, read_creds, read_seed, tls_context
from transcriber.domain.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_BETWEEN_SERVERS = re.compile(r",(?=[^,]*://|[^@]*$)")  # a comma, unless it may belong to a password
_USER = re.compile(r"(?<=://).*@|^(?!.*://).*@")  # and the password, whatever characters it has


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """Where NATS is and who we are there. Empty strings mean not given. Timeouts in seconds."""

    url: str = field(default="nats://127.0.0.1:4222", repr=False)  # or several, with commas between them
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    creds: str = ""  # path of a credentials file
    nkey: str = ""  # path of a seed file
    ca: str = ""
    cert: str = ""
    key: str = ""
    connect_timeout: float = 30.0
    reconnect_timeout: float = 120.0

    @property
    def servers(self) -> list[str]:
        """The URLs without user and password."""
        return [_USER.sub("", server) for server in self._given]

    @property
    def address(self) -> str:
        """The servers, fit for logs."""
        return ",".join(self.servers)

    @property
    def _given(self) -> list[str]:
        return [server.strip() for server in _BETWEEN_SERVERS.split(self.url)]

    def credentials(self, server: str | None = None) -> Credentials:
        """Return who we are to a server, `host:port`, by what the files hold now. Raises `BrokerError`.

        A server that the URL does not name, as others of its cluster tell of, gets what the first one gets.
        """
        who = self._in_url(server)
        if self.user:
            who = Credentials(user=self.user, password=self.password)
        elif self.token:
            who = Credentials(token=self.token)
        jwt = seed = None
        if self.nkey:
            seed = self._read("NATS_NKEY", self.nkey, read_seed)
        if self.creds:
            jwt, seed = self._read("NATS_CREDS", self.creds, read_creds)
        try:
            tls = tls_context(self.ca, self.cert, self.key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise BrokerError(self.address, f"NATS_CA, NATS_CERT or NATS_KEY cannot be loaded: {error}") from error
        token = self.token or who.token
        return Credentials(user=who.user, password=who.password, token=token, jwt=jwt, seed=seed, tls=tls)

    def arguments(self) -> dict[str, Any]:
        """Return what nats-py's `connect` wants for these credentials. Raises `BrokerError`."""
        who = self.credentials()
        given = {"user": who.user, "password": who.password, "token": who.token, "tls": who.tls}
        given |= {"user_credentials": self.creds} if self.creds else {"nkeys_seed_str": who.seed}
        return {name: value for name, value in given.items() if value is not None}

    def _in_url(self, server: str | None) -> Credentials:
        """Return the identities in the URL, percent-encoded or not: a password may hold any character."""
        known: dict[str, Credentials] = {}
        for given, bare in zip(self._given, self.servers, strict=True):
            userinfo = given.partition("://")[2] or given
            userinfo = userinfo[: -len(rest := bare.partition("://")[2] or bare)].rpartition("@")[0]
            name, colon, password = userinfo.partition(":")
            if name and colon:
                known[_place(rest)] = Credentials(user=unquote(name), password=unquote(password))
            elif name:
                known[_place(rest)] = Credentials(token=unquote(name))
        first = next(iter(known.values()), Credentials())
        return known.get(server or "", first)

    def _read(self, setting: str, path: str, read: Callable[[str], T]) -> T:
        try:
            return read(path)
        except OSError as error:
            raise BrokerError(self.address, f"{setting}={path!r} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise BrokerError(self.address, f"{setting}={path!r} {error}") from error


def _place(server: str) -> str:
    """`host:port` of a server without scheme, user and password, as nats-py has it."""
    server = server.rstrip("/").lower()
    return server if re.search(r":[0-9]+$", server) else f"{server}:4222"
