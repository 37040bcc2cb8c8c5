"""Keys of clients: a file of their hashes, with a tenant and limits for each."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transcriber.domain.errors import SettingError
from transcriber.gateway.limits import Bucket
from transcriber.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TENANT = re.compile(r"[A-Za-z0-9_-]{1,32}")  # half of a stream's name
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ALLOWED = (
    "lines of: SHA-256 of the key in hexadecimal, tenant [A-Za-z0-9_-]{1,32}, then any of streams=N, requests=N "
    "(a minute) and audio=N (seconds of audio a second); make one with: transcriber gateway --make-key TENANT"
)
_LIMITS = ("streams", "requests", "audio")
_MINUTE = 60.0
NOBODY = "anyone"  # the tenant of those who need no key


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may do: open WebSockets, requests a minute, seconds of audio a second."""

    streams: float = math.inf
    requests: float = math.inf
    audio: float = math.inf


class Key:
    """One key: whose it is, and what is left of its limits. A burst of a minute's worth is allowed."""

    def __init__(self, tenant: str, limits: Limits, digest: str = "") -> None:
        self.tenant = tenant
        self.digest = digest
        self.revoked = False
        self.open = 0  # WebSockets
        self.allow(limits)

    def allow(self, limits: Limits) -> None:
        """Set other limits."""
        self.limits = limits
        self._requests = Bucket(limits.requests / _MINUTE, limits.requests)
        self._audio = Bucket(limits.audio, limits.audio * _MINUTE)

    @property
    def may_send(self) -> bool:
        """Whether its clients may send audio now."""
        return self._audio.left(time.monotonic()) > 0

    def sent(self, seconds: float) -> None:
        """Count audio of a stream."""
        self._audio.take(seconds, time.monotonic())

    def charge(self, seconds: float) -> None:
        """Count the audio of a recording. Raises `Problem` 429 when earlier ones have used up the allowance."""
        now = time.monotonic()
        if self._audio.left(now) <= 0:
            wait = self._audio.wait(1.0, now)
            text = f"this key may send {self.limits.audio:g} s of audio a second"
            raise Problem(429, text, code="rate_limit_exceeded", retry_after=wait)
        self._audio.take(seconds, now)

    def request(self) -> None:
        """Count a request. Raises `Problem` 429 when there were too many in the last minute."""
        now = time.monotonic()
        if (wait := self._requests.wait(1.0, now)) > 0:
            text = f"this key may make {self.limits.requests:g} requests a minute"
            raise Problem(429, text, code="rate_limit_exceeded", retry_after=wait)
        self._requests.take(1.0, now)

    def check_place(self) -> None:
        """Raise `Problem` 429 when all of its WebSockets are open."""
        if self.open >= self.limits.streams:
            text = f"this key may have {self.limits.streams:g} connections open"
            raise Problem(429, text, code="rate_limit_exceeded", retry_after=1.0)


class Keys:
    """All keys. Without a file, everybody is served as one caller."""

    def __init__(self, path: Path | None) -> None:
        """Raises `SettingError` when the file cannot be read."""
        self._path = path
        self._keys: Mapping[str, Key] = {}
        self.anyone = None if path is not None else Key(NOBODY, Limits())
        self.reload()

    def reload(self) -> list[Key]:
        """Read the file again. Returns the keys that are no longer in it.

        Raises `SettingError`, and keeps the old ones.
        """
        if self._path is None:
            return []
        found = {}
        for digest, (tenant, limits) in read(self._path).items():
            key = self._keys.get(digest)
            if key is None or key.tenant != tenant:
                key = Key(tenant, limits, digest)
            elif key.limits != limits:
                key.allow(limits)
            found[digest] = key
        gone = [key for digest, key in self._keys.items() if found.get(digest) is not key]
        for key in gone:
            key.revoked = True
        self._keys = found
        return gone

    def find(self, secret: str | None) -> Key | None:
        """Return the key of this text; None for an unknown one."""
        if self.anyone is not None:
            return self.anyone
        return self._keys.get(digest_of(secret)) if secret else None

    def by_digest(self, digest: str) -> Key | None:
        """Return the key with this hash; None if there is none."""
        return self.anyone if self.anyone is not None else self._keys.get(digest)

    def __len__(self) -> int:
        return len(self._keys)


def digest_of(secret: str) -> str:
    """SHA-256 in hexadecimal. A slow hash would add nothing: keys are made at random, not thought up."""
    return hashlib.sha256(secret.encode()).hexdigest()


def make(tenant: str) -> tuple[str, str]:
    """Return a new key, and its line for the file."""
    secret = f"tr_{secrets.token_urlsafe(32)}"
    return secret, line_of(secret, tenant)


def line_of(secret: str, tenant: str) -> str:
    """The line of a key in the file."""
    return f"{digest_of(secret)} {tenant}"


def read(path: Path) -> dict[str, tuple[str, Limits]]:
    """Read a file of keys: by hash, tenant and limits. Raises `SettingError`."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError("GATEWAY_KEYS", str(path), f"a file that can be read ({error})") from error
    found = {}
    for number, line in enumerate(lines, 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            digest, tenant, *limits = fields
            given = Limits(**dict(_limit(limit) for limit in limits))
        except ValueError:
            digest = ""
        if not _DIGEST.fullmatch(digest) or not TENANT.fullmatch(tenant):
            raise SettingError("GATEWAY_KEYS", f"{path}:{number}", _ALLOWED)
        found[digest] = tenant, given
    return found


def _limit(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    number = float(value)
    if name not in _LIMITS or not 0 < number < math.inf:
        raise ValueError
    return name, number
