"""Records of the transcript stream: results and events, each with a checkpoint. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from transcriber.domain.chunks import AudioFormat, Cursor, Encoding, Mark
from transcriber.domain.events import Flushed, Rejected, Replaced, Suppressed, TakenOver
from transcriber.domain.results import Transcript
from transcriber.domain.timeline import SAMPLE_RATE, Account, Checkpoint, GapReason, Origin
from transcriber.protocol.outgoing import Message, account_fields, encode_event, encode_final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.domain.records import Record


def encode_record(record: Record, unique: int, max_payload: int) -> Message:
    """Encode a record. `unique` ends the message id of a record without bounds and without a place in stored audio."""
    event, at = record.event, record.checkpoint
    more = {} if at is None else fields_of(at)
    if at is not None and isinstance(
        event, Flushed | Suppressed | Rejected | Replaced | TakenOver
    ):  # they have a session and an end of their own
        tenant = at.origin.tenant
        more["at"] = {"session": at.origin.session, "tenant": tenant, "end": at.position / SAMPLE_RATE}
        more["at"] |= {"over": True} if at.over else {}
    if isinstance(event, Transcript):
        return encode_final(event, record.traceparent, max_payload, more)
    return encode_event(event, unique, record.traceparent, more)


def decode_checkpoint(payload: bytes) -> Checkpoint | None:
    """Read a record's checkpoint, None if it has none. Raises `ValueError` if the payload is no record."""
    body = json.loads(payload)
    try:
        return _checkpoint(body | body.get("at", {})) if "next_seq" in body else None
    except (KeyError, TypeError) as error:
        raise ValueError(f"a record without a valid {error}") from error


def fields_of(at: Checkpoint) -> dict[str, Any]:
    """The checkpoint's fields. The record's own fields take precedence over them."""
    return {
        "sequence": at.sequence,
        "end": at.position / SAMPLE_RATE,
        "asked": at.requested_id,
        "source": {"encoding": at.format.encoding, "sample_rate": at.format.rate, "channels": at.format.channels},
        **account_fields(at.account),
        "next_seq": at.cursor.seq,
        "next_frame": at.cursor.frame,
        **({"declared": True} if at.declared else {}),
        **({"older": list(at.older)} if at.older else {}),
        **({"used": dict(at.used)} if at.used else {}),
        **({} if at.cursor.mark is None else {"mark_seq": at.cursor.mark.seq, "mark_time": at.cursor.mark.time}),
    }


def _checkpoint(body: Mapping[str, Any]) -> Checkpoint:
    # A final has the number of its window, every other record that of the next window.
    sequence = body["sequence"] + (body["type"] == "final")
    source = body["source"]
    mark = Mark(body["mark_seq"], body["mark_time"]) if "mark_seq" in body else None
    return Checkpoint(
        origin=Origin(body["stream"], body["session"], body.get("tenant")),
        requested_id=body["asked"],
        format=AudioFormat(Encoding(source["encoding"]), source["sample_rate"], source["channels"]),
        position=_samples(body["end"]),
        sequence=sequence,
        account=Account(
            received=_samples(body["received"]),
            transcribed=_samples(body["transcribed"]),
            silent=_samples(body["silent"]),
            gap={GapReason(reason): _samples(length) for reason, length in body["gap"].items()},
            pending=0,
        ),
        cursor=Cursor(body["next_seq"], body["next_frame"], mark),
        over=body["type"] == "ended" or body.get("over", False),
        declared=body.get("declared", False),
        older=tuple(body.get("older", ())),
        used=body.get("used", {}),
    )


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)
