"""What is stored in the transcript stream. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transcriber.domain.events import Event
    from transcriber.domain.results import Transcript
    from transcriber.domain.timeline import Checkpoint, Silence, Window


@dataclass(frozen=True, slots=True)
class Record:
    """One message of the transcript stream; `checkpoint` is None before the stream's first session."""

    event: Transcript | Event | Silence
    checkpoint: Checkpoint | None
    traceparent: str | None = None
    window: Window | None = None  # decided by it
