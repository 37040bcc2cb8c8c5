"""HTTP answers as bytes: each with its length, never cached, and the connection closed after it. Pure."""

from __future__ import annotations


def answer(status: str, kind: str, payload: bytes, *headers: str, head: bool = False) -> bytes:
    """Write one answer; `kind` is its media type, `head` leaves the payload out."""
    return opening(status, kind, f"Content-Length: {len(payload)}", *headers) + (b"" if head else payload)


def opening(status: str, kind: str, *headers: str) -> bytes:
    """Write only what stands before the payload."""
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers, "Cache-Control: no-store", "Connection: close")
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()
