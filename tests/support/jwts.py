"""Operator, account and users as `nsc` makes them: keys, JWTs, credentials files, and a server that trusts them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys

_PREFIX = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_LIMITS = {**dict.fromkeys(("subs", "conn", "leaf", "imports", "exports", "data", "payload"), -1), "wildcards": True}
_STORAGE = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


def seed_for(kind: str) -> str:
    """A new seed: base32 of prefixes, 32 random bytes and a CRC-16."""
    public = _PREFIX[kind]
    head = bytes([(18 << 3) | (public >> 5), (public & 31) << 3])
    raw = head + os.urandom(32)
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


class Key:
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.seed = seed_for(kind)
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = self._pair.public_key.decode()

    def sign(self, subject: Key, claims: dict[str, Any], expires: float | None = None) -> str:
        """A JWT for the subject's public key."""
        body = {"iat": int(time.time()), "iss": self.public, "sub": subject.public, "name": subject.kind}
        body |= {"exp": int(expires)} if expires is not None else {}
        body |= {"nats": {**claims, "type": subject.kind, "version": 2}}
        body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
        signed = f"{_encoded({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_encoded(body)}"
        return f"{signed}.{_base64(self._pair.sign(signed.encode()))}"


class Authority:
    """An operator with an account for each name, and one for the system; `config` is for the servers."""

    def __init__(self, *names: str) -> None:
        self._operator, self._system = Key("operator"), Key("account")
        self._accounts = {name: Key("account") for name in names or ("main",)}
        # Signed once: a server takes no other operator while it runs.
        self._trusted = self._operator.sign(self._operator, {"system_account": self._system.public})
        self.config = self.configured()

    def configured(self, account: str = "", lasts: float | None = None, **changed: Any) -> str:
        """The configuration in which one account's JWT has other limits, or lasts so many seconds, or has more claims.

        Limits are named as in the JWT: `conn`, `data`, `payload`, and so on.
        """
        jwts = {self._system.public: self._operator.sign(self._system, {"limits": _LIMITS})}
        for name, key in self._accounts.items():
            claims: dict[str, Any] = {"limits": {**_LIMITS, **_STORAGE}}
            if name == account:
                claims["limits"] |= {k: v for k, v in changed.items() if k in _LIMITS}
                claims |= {k: v for k, v in changed.items() if k not in _LIMITS}
            expires = time.time() + lasts if name == account and lasts is not None else None
            jwts[key.public] = self._operator.sign(key, claims, expires)
        preload = "\n".join(f"{public}: {jwt}" for public, jwt in jwts.items())
        return f"operator: {self._trusted}\nresolver: MEMORY\nresolver_preload: {{\n{preload}\n}}\n"

    def write(self, path: Path, lasts: float, account: str = "main") -> None:
        """Credentials of a new user, good for so many seconds, in place of what is there."""
        user = Key("user")
        claims = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1}
        jwt = self._accounts[account].sign(user, claims, time.time() + lasts)
        new = path.with_suffix(".new")
        new.write_text(creds(jwt, user.seed))
        new.replace(path)


def creds(jwt: str, seed: str) -> str:
    """A credentials file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def _encoded(body: dict[str, Any]) -> str:
    return _base64(json.dumps(body).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
