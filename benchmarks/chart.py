"""Draws an SVG of latency and of the windows' fates against load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transcriber.domain.errors import CannotStart

if TYPE_CHECKING:
    from benchmarks.report import Report

_INCHES = (7.0, 7.0)  # readable at a page's width


def check() -> None:
    """Raise `CannotStart` if matplotlib is not installed, before anything is measured."""
    try:
        import matplotlib.figure  # noqa: F401, PLC0415 - of the dependency group `bench`
    except ImportError:
        raise CannotStart("--chart needs matplotlib: pip install --group bench brings it") from None


def draw(report: Report, path: Path) -> None:
    """Draw a report of `latency` or `overload`: seconds in the upper half, shares of the windows in the lower."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - of the dependency group `bench`

    loads: list[dict[str, Any]] = report.figures["loads"]  # type: ignore[assignment]
    x = [100 * f["load"] for f in loads]
    figure = Figure(figsize=_INCHES, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, values in _latencies(loads).items():
        upper.plot(x, values, marker="o", label=name)
    if "max_latency" in report.settings:
        upper.axhline(report.settings["max_latency"], linestyle="--", color="black", label="L_max")
    upper.set_ylabel("seconds")
    upper.set_ylim(bottom=0)
    upper.set_title(f"{report.settings['model']}, threads: {report.settings['threads']}")
    for name, values in _shares(loads).items():
        lower.plot(x, values, marker="o", label=name)
    lower.set_ylabel("%")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("offered load, % of the engine's capacity")
    for axes in (upper, lower):
        axes.legend()
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, format="svg")


def _latencies(loads: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The upper lines, by name. A load without values leaves a hole."""
    names = {
        "final": "end of speech to final",
        "partial": "first word to first partial",
        "lateness": "try-put to final",
    }
    found = {}
    for kind, name in names.items():
        for p in ("p50", "p95", "p99", "p100"):
            values = [f.get(kind, {}).get(p) for f in loads]
            if any(v is not None for v in values):
                found[f"{name}, {p}"] = [float("nan") if v is None else v for v in values]
    return found


def _shares(loads: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The lower lines, by name, in percent."""
    reasons = sorted({reason for f in loads for reason in f["dropped"]})
    windows = [f.get("offered", f.get("utterances")) or 1 for f in loads]
    found = {
        f"dropped: {reason}": [100 * f["dropped"].get(reason, 0) / n for f, n in zip(loads, windows, strict=True)]
        for reason in reasons or ("queue_full",)
    }
    if all("goodput" in f for f in loads):
        found["goodput, of the engine's capacity"] = [100 * f["goodput"] for f in loads]
    return found
