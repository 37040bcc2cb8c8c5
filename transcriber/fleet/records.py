"""Plans, members and positions as JSON, the way they lie in the buckets. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from transcriber.fleet.plan import Member, Ownership, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transcriber.fleet.plan import Term

VERSION = 1


def encode_plan(plan: Plan) -> bytes:
    """Encode a plan: the names once, then a row for each partition."""
    names = sorted({name for entry in plan.partitions for name in (entry.owner, entry.to) if name is not None})
    at = {name: number for number, name in enumerate(names)}
    rows = [[at.get(e.owner or "", -1), e.epoch, at.get(e.to or "", -1), int(e.clean)] for e in plan.partitions]
    return _json({"generation": plan.generation, "live": plan.live, "members": names, "partitions": rows})


def decode_plan(payload: bytes) -> Plan:
    """Decode a plan. Raises `ValueError` if the payload is none."""
    body = _body(payload)
    try:
        names = dict(enumerate(body["members"]))
        rows = tuple(
            Ownership(names.get(owner), epoch, names.get(to), bool(clean))
            for owner, epoch, to, clean in body["partitions"]
        )
        return Plan(rows, body["generation"], bool(body["live"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"a plan without a valid {error}") from error


def encode_member(member: Member) -> bytes:
    """Encode what a member says of itself."""
    return _json(
        {
            "id": member.id,
            "since": member.since,
            "capacity": member.capacity,
            "draining": member.draining,
            "loads": [[p, round(load, 2)] for p, load in sorted(member.loads.items())],
            "released": sorted(member.released),
            "prepared": sorted(member.prepared),
            "wait": round(member.wait, 3),
            "lag": round(member.lag, 3),
        }
    )


def decode_member(payload: bytes) -> Member:
    """Decode a member. Raises `ValueError` if the payload is none."""
    body = _body(payload)
    try:
        return Member(
            id=body["id"],
            since=body["since"],
            capacity=body["capacity"],
            draining=body["draining"],
            loads={int(p): float(load) for p, load in body["loads"]},
            released=_terms(body["released"]),
            prepared=_terms(body["prepared"]),
            wait=body["wait"],
            lag=body["lag"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"a member without a valid {error}") from error


def _terms(rows: Iterable[Iterable[int]]) -> frozenset[Term]:
    return frozenset((int(p), int(epoch)) for p, epoch in rows)


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps({"v": VERSION} | body, separators=(",", ":")).encode()


def _body(payload: bytes) -> dict[str, Any]:
    body = json.loads(payload)
    if not isinstance(body, dict) or body.get("v") != VERSION:
        raise ValueError(f"not of version {VERSION}")
    return body
