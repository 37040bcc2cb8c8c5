"""What a fleet looks like from outside: its members, partitions and room. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transcriber.fleet.admission import room
from transcriber.fleet.plan import coordinator, present
from transcriber.fleet.roster import without_owner
from transcriber.protocol.partitions import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transcriber.fleet.plan import Member, Plan


def view(plan: Plan, members: Mapping[str, Member]) -> dict[str, Any]:
    """Return the fleet as JSON has it: counts of streams, seconds of wait and lag, moves since its start."""
    there = present(members)
    found, loads = room(there.values()), {p: load for member in there.values() for p, load in member.loads.items()}
    return {
        "mode": "live" if plan.live else "durable",
        "generation": plan.generation,
        "coordinator": coordinator(there),
        "load": round(found.load, 2),
        "capacity": round(found.capacity, 2),
        "full": found.full,
        "estimated_wait": found.wait,
        "moving": sum(entry.to is not None for entry in plan.partitions),
        "moves": sum(max(0, entry.epoch - 1) for entry in plan.partitions),  # the first owner is no move
        "without_owner": without_owner(plan, there),
        "members": [_member(plan, member) for member in sorted(there.values(), key=lambda m: (m.since, m.id))],
        "partitions": [
            {"partition": p, "owner": e.owner, "epoch": e.epoch, "to": e.to, "load": loads.get(p, 0.0)}
            for p, e in enumerate(plan.partitions)
        ],
    }


def _member(plan: Plan, member: Member) -> dict[str, Any]:
    return {
        "id": member.id,
        "name": name_of(member.id),
        "since": member.since,
        "draining": member.draining,
        "partitions": plan.owned(member.id),
        "load": round(member.load, 2),
        "capacity": round(member.capacity, 2),
        "estimated_wait": member.wait,
        "lag": member.lag,
    }


def as_text(seen: Mapping[str, Any]) -> str:
    """Write a view as a table of members, and a line for the whole."""
    rows = [("member", "partitions", "streams", "capacity", "wait s", "lag s", "")]
    rows += [
        (
            m["name"],
            str(len(m["partitions"])),
            f"{m['load']:.1f}",
            f"{m['capacity']:.1f}",
            f"{m['estimated_wait']:.1f}",
            f"{m['lag']:.1f}",
            "draining" if m["draining"] else "plans" if m["id"] == seen["coordinator"] else "",
        )
        for m in seen["members"]
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]).rstrip() for row in rows
    ]
    missing = seen["without_owner"]
    lines.append(
        f"{seen['mode']}, {len(seen['partitions'])} partitions, plan {seen['generation']}: "
        f"{seen['load']:.1f} of {seen['capacity']:.1f} streams, {seen['moving']} moving, {len(missing)} without owner, "
        f"{seen['moves']} moves so far" + (", full" if seen["full"] else "")
    )
    return "\n".join(lines)
