"""The README says what the program does: its tables are compared with the code."""

from __future__ import annotations

import re
from pathlib import Path

from transcriber import settings
from transcriber.domain.measurements import Snapshot, Tallies
from transcriber.domain.timeline import GapReason
from transcriber.protocol import incoming
from transcriber.telemetry.metrics import Metrics

README = (Path(__file__).parent.parent / "README.md").read_text()


def section(title: str) -> str:
    return re.split(r"^## ", README.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def first_column(text: str) -> set[str]:
    rows = re.findall(r"^\| (.*?) \|", text, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([A-Za-z0-9_.-]+)`", row)}


def test_the_settings_table_names_every_setting_and_no_other() -> None:
    """Whoever adds a setting documents it."""
    documented = first_column(section("Settings"))
    for name in list(documented):
        if name.endswith("_"):  # `_METRICS_`, `_TRACES_`: the same variable for one signal
            documented.remove(name)
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TIMEOUT"):
        assert name in documented
        documented |= {name.replace("OTLP_", f"OTLP_{signal}_") for signal in ("METRICS", "TRACES")}
    assert documented == settings.names()


def test_the_metrics_table_names_every_metric_and_no_other() -> None:
    """Whoever adds a metric documents it."""
    created: set[str] = set()

    class Meter:
        """A stand-in that only notes names."""

        def __getattr__(self, kind: str) -> object:
            return lambda name, *_arguments, **_options: created.add(name)

    Metrics(Meter(), Tallies(), lambda: Snapshot(0, 1, 0.0, 0.0, 0.0))  # type: ignore[arg-type]
    assert first_column(section("Metrics")) == created


def test_every_gap_reason_is_explained() -> None:
    """An operator finds each reason, with what to do about it."""
    assert first_column(section("Operating it")) == {reason.value for reason in GapReason}


def test_every_header_is_documented() -> None:
    """The wire protocol's headers are those that the parser reads."""
    headers = {
        incoming.ENCODING,
        incoming.RATE,
        incoming.CHANNELS,
        incoming.SESSION,
        incoming.OFFSET,
        incoming.LANGUAGE,
        incoming.TENANT,
        incoming.EVENT,
        incoming.TRACEPARENT,
    }
    assert first_column(section("Wire protocol")) == headers


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    """Installing from the lock, installing the package, pytest: the same three steps in both places."""
    script = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    command = next(line for line in README.splitlines() if line.endswith("pytest"))
    for step in ("--require-hashes -r requirements-dev.lock", "--no-deps -e ."):
        assert step in command
        assert step in script
    assert "\npytest\n" in script
