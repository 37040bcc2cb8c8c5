"""Where a partition's live streams are settled, as one owner tells the next one. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zlib import crc32

from transcriber.domain.chunks import DroppedChunk
from transcriber.protocol import checkpoints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.domain.chunks import Chunk
    from transcriber.domain.timeline import Checkpoint

VERSION = 1
Last = tuple[int | None, int, str]  # the offset of a stream's newest message, a check sum of its audio, its event


@dataclass(frozen=True, slots=True)
class Positions:
    """Each stream's session, and the newest message that was taken from it. `at`: seconds since 1970."""

    at: float
    sessions: tuple[Checkpoint, ...] = ()
    last: Mapping[str, Last] = field(default_factory=dict)


def last_of(arrival: Chunk | DroppedChunk) -> Last:
    """What tells a message from those before and after it."""
    chunk = arrival.chunk if isinstance(arrival, DroppedChunk) else arrival
    return chunk.offset, crc32(chunk.pcm), str(chunk.event or "")


def encode_positions(positions: Positions) -> bytes:
    """Encode positions."""
    body = {
        "v": VERSION,
        "time": positions.at,
        "streams": [_session(at) for at in positions.sessions],
        "last": {stream: list(last) for stream, last in positions.last.items()},
    }
    return json.dumps(body, separators=(",", ":")).encode()


def decode_positions(payload: bytes) -> Positions:
    """Decode positions. Raises `ValueError` if the payload has none."""
    body = json.loads(payload)
    try:
        found = tuple(checkpoints.decode_checkpoint(json.dumps(one).encode()) for one in body["streams"])
        last = {stream: (offset, check, event) for stream, (offset, check, event) in body["last"].items()}
        return Positions(body["time"], tuple(at for at in found if at is not None), last)
    except (KeyError, TypeError) as error:
        raise ValueError(f"positions without a valid {error}") from error


def _session(at: Checkpoint) -> dict[str, Any]:
    origin = at.origin
    named = {"type": "position", "stream": origin.stream, "session": origin.session, "tenant": origin.tenant}
    return named | checkpoints.fields_of(at)
