"""Whole recordings over HTTP: received, decoded, cut into parts, and joined into the answer that a client expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.gateway.rest.deepgram import Deepgram
from transcriber.gateway.rest.openai import OpenAI
from transcriber.gateway.rest.recordings import Recordings
from transcriber.gateway.rest.seed import Seed

if TYPE_CHECKING:
    from transcriber.gateway.parts import Parts


def register(parts: Parts) -> None:
    """Add the paths of all protocols for recordings."""
    recordings = Recordings(parts)
    for protocol in (OpenAI, Deepgram, Seed):
        protocol(parts, recordings).register()
