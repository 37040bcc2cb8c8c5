"""A benchmark's results: a table to read, and JSON to keep."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import machine

_LATE = 0.05  # seconds that the load generator may be late: half a usual chunk


@dataclass(slots=True, kw_only=True)
class Report:
    """One run. `measured`: a sentence for each figure that says how it was measured. `ratios`: of `figures`."""

    benchmark: str
    settings: Mapping[str, object]
    measured: Mapping[str, str]
    figures: dict[str, object] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    machine: Mapping[str, object] = field(default_factory=machine.describe)

    def text(self) -> str:
        """The text to print."""
        m = self.machine
        head = f"{m['cpu']}, {m['cpu_quota']} of {m['cores']} cores, {m['load_before']} processes running before"
        chosen = ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in self.settings.items())
        parts = [
            f"benchmarks {self.benchmark}: {chosen}\n{head}",
            *(f"note: {note}" for note in self.notes),
            *self.tables,
        ]
        if self.ratios:
            rows = [[name.replace("_", " "), f"{value:.3f}"] for name, value in self.ratios.items()]
            parts.append(table(["ratio", ""], rows))
        parts.append("\n".join(f"{name.replace('_', ' ')}: {text}" for name, text in self.measured.items()))
        return "\n\n".join(parts)

    def write(self, path: Path) -> None:
        """Write everything except the tables as JSON."""
        names = ("benchmark", "machine", "settings", "measured", "figures", "ratios", "notes")
        body = {name: getattr(self, name) for name in names}
        body["versions"] = machine.versions()
        path.write_text(json.dumps(body, indent=1) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out columns: the first one left-aligned, figures right-aligned."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )


def percentiles(values: Sequence[float], *wanted: int) -> dict[str, float | None]:
    """`p50`, `p99` and the like, interpolated linearly; None without values. `n`: the number of values."""
    found = {f"p{p}": float(np.percentile(values, p)) if len(values) else None for p in wanted}
    return {**found, "n": len(values)}


def kept_up(late: Iterable[tuple[str, float]]) -> list[str]:
    """Notes on the loads (name, p99 of lateness in seconds) at which the load generator was late."""
    return [
        f"at {name} the load generator was up to {p99 * 1000:.0f} ms late (p99): the machine is full"
        for name, p99 in late
        if p99 > _LATE
    ]


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
