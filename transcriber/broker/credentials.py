"""Our identity at a server, read from the files as they are now: they are renewed while the daemon runs."""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

_JWT_MARK, _SEED_MARK = "BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")
_USER_SEED = re.compile(r"SU[A-Z2-7]{56}")
_OTHER_SEED = re.compile(r"S[A-Z][A-Z2-7]{56}")
_CHECK_BYTES = 2  # at a seed's end: CRC-16 of what is before, low byte first


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What one attempt to connect presents; None: nothing of the kind."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    jwt: str | None = field(default=None, repr=False)
    seed: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


def read_creds(path: str) -> tuple[str, str]:
    """Return JWT and seed of a credentials file, as `nsc` writes them. Raises `OSError`, `ValueError`."""
    text = _text(path)
    jwt = "".join(_between_marks(text, _JWT_MARK))
    if not _JWT.fullmatch(jwt):
        raise ValueError(f"holds no JWT after {_JWT_MARK!r}: three parts with dots between them are allowed")
    return jwt, _checked("".join(_between_marks(text, _SEED_MARK)))


def read_seed(path: str) -> str:
    """Return the seed in a file, with or without the lines that decorate it. Raises `OSError`, `ValueError`."""
    text = _text(path)
    lines = _between_marks(text, _SEED_MARK) if _SEED_MARK in text else text.split()
    return _checked("".join(lines))


def tls_context(ca: str, cert: str, key: str) -> ssl.SSLContext | None:
    """Return the TLS context that these files make; None when none is given. Raises `OSError`, `ValueError`."""
    if key and not cert:
        raise ValueError("NATS_KEY needs NATS_CERT")
    if not (ca or cert):
        return None
    context = ssl.create_default_context(cafile=ca or None)
    if cert:
        context.load_cert_chain(cert, key or None, _no_passphrase)
    return context


def _text(path: str) -> str:
    return Path(path).read_bytes().decode("utf-8-sig", "replace")


def _between_marks(text: str, mark: str) -> list[str]:
    """The lines after the one with the mark, up to the next line of dashes."""
    _, found, after = text.partition(mark)
    if not found:
        raise ValueError(f"holds no {mark!r}")
    lines = [line.strip() for line in after.splitlines()[1:]]
    end = next((i for i, line in enumerate(lines) if line.startswith("---")), len(lines))
    return lines[:end]


def _checked(seed: str) -> str:
    """Return a user's seed if it is whole. What is wrong is said without showing it. Raises `ValueError`."""
    if not _USER_SEED.fullmatch(seed):
        if _OTHER_SEED.fullmatch(seed):
            raise ValueError(f"holds the seed of no user: it begins with {seed[:2]}, not SU")
        raise ValueError(f"holds no user's seed: SU and 56 of A to Z and 2 to 7 are allowed; there are {len(seed)}")
    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    if binascii.crc_hqx(raw[:-_CHECK_BYTES], 0) != int.from_bytes(raw[-_CHECK_BYTES:], "little"):
        raise ValueError("holds a damaged seed: its checksum is wrong")
    return seed


def _no_passphrase() -> str:
    """Answer OpenSSL, which would otherwise ask at the terminal."""
    raise ValueError("NATS_KEY is encrypted; a key without a passphrase is allowed")
