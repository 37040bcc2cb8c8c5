"""A page as one file that loads nothing from elsewhere, with headers that allow it no more."""

from __future__ import annotations

import base64
import hashlib
import re
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# From RFC 6761 and RFC 6762; ICANN reserved "internal" in 2024; names of services inside a cluster end in "svc".
_PRIVATE = frozenset({"localhost", "local", "internal", "svc"})
# What stands for the parts that all pages share.
_SHARED = {"<!-- look.html -->\n": "look.html", "/* look.css */": "look.css", "// look.js": "look.js"}


class Page:
    """Reads a page's file and puts the shared parts into it. `more` adds sources to directives of its policy."""

    def __init__(self, file: Path, more: Mapping[str, str] | None = None) -> None:
        html = file.read_text()
        for mark, name in _SHARED.items():
            html = html.replace(mark, Path(__file__).with_name(name).read_text())
        self.body = html.encode()
        self.headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy(html, more or {}),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }


def refusal(host: str) -> str | None:
    """Return what is wrong with a host name that a stranger could own; None for any other.

    A web page can point a name of its own at this machine, and then read our pages as its own origin (DNS
    rebinding). Safe are addresses, names without a dot, and endings that do not exist in public DNS.
    """
    name = host.lower().rstrip(".")
    if "." not in name or name.rpartition(".")[2] in _PRIVATE or _is_address(name):
        return None
    return f"Host: {host}; allowed: addresses, names without a dot, {', '.join(f'.{p}' for p in sorted(_PRIVATE))}"


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def policy(html: str, more: Mapping[str, str]) -> str:
    """Build the Content-Security-Policy: the browser may use the page's own style and script and our events, no more.

    Transcripts are foreign text. Trusted types keep every script from turning text into markup.
    """
    style, script = (re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL) for tag in ("style", "script"))
    sources = {
        "default-src": "'none'",
        "style-src": _hashed(style),
        "script-src": _hashed(script),
        "connect-src": "'self'",
        "img-src": "data:",  # the empty icon
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {source} {more.get(name, '')}".rstrip() for name, source in sources.items())


def _hashed(found: re.Match[str] | None) -> str:
    if found is None:
        return "'none'"
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"
