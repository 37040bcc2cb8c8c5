"""The headers that a producer may send."""

from __future__ import annotations

from transcriber.protocol import headers, incoming

NAMES = (
    incoming.ENCODING,
    incoming.RATE,
    incoming.CHANNELS,
    incoming.SESSION,
    incoming.OFFSET,
    incoming.LANGUAGE,
    incoming.TENANT,
    incoming.EVENT,
    headers.NOTIFY,
    headers.PROMPT,
    headers.TASK,
    headers.TIMEOUT,
    headers.ENDPOINTING,
    headers.PARTIALS,
    incoming.TRACEPARENT,
)
