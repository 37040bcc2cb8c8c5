"""Tokens for browsers, which must not hold a key: signed, for a minute at most, and stored nowhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json

PREFIX = "ek_"  # as OpenAI's, which its clients recognise
LONGEST_SECS = 60.0  # enough to open a connection, which then lasts


class Tokens:
    """Makes and checks tokens. Gateways with the same secret accept each other's."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, digest: str, expires: float) -> str:
        """Return a token for the key with this hash, until `expires` (seconds since 1970)."""
        body = _text(json.dumps({"k": digest, "e": int(expires)}, separators=(",", ":")).encode())
        return f"{PREFIX}{body}.{_text(self._sign(body))}"

    def digest_of(self, token: str, now: float) -> str | None:
        """Return the hash of the key that the token stands for; None if it is none of ours, or has expired."""
        body, _, signature = token.removeprefix(PREFIX).partition(".")
        try:
            if not hmac.compare_digest(_bytes(signature), self._sign(body)):
                return None
            said = json.loads(_bytes(body))
            return str(said["k"]) if now < said["e"] else None
        except (ValueError, KeyError, TypeError, binascii.Error):
            return None

    def _sign(self, body: str) -> bytes:
        return hmac.digest(self._secret, body.encode(), hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
