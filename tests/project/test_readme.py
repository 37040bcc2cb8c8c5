"""README and docs say what the program does: tables are compared with the code, links with the files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from headers import NAMES
from places import ROOT

from transcriber import settings
from transcriber.domain.measurements import FleetFigures, Snapshot, Tallies
from transcriber.domain.timeline import GapReason
from transcriber.gateway.figures import Figures
from transcriber.settings import gateway
from transcriber.telemetry.gateway import GatewayTelemetry
from transcriber.telemetry.metrics import Metrics
from transcriber.telemetry.providers import TelemetryOptions

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
PAGES += [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "k8s").glob("*.md"))]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def section(text: str, title: str) -> str:
    """From a heading to the next one."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def anchors(text: str) -> set[str]:
    """Headings as GitHub links to them."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def first_column(text: str) -> set[str]:
    rows = re.findall(r"^\| (.*?) \|", text, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([A-Za-z0-9_.-]+)`", row)}


def test_the_settings_table_names_every_setting_and_no_other() -> None:
    """A new setting is documented with it."""
    documented = first_column(page("settings"))
    for name in list(documented):
        if name.endswith("_"):  # `_METRICS_`, `_TRACES_`: the same variable for one signal
            documented.remove(name)
    for name in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TIMEOUT"):
        assert name in documented
        documented |= {name.replace("OTLP_", f"OTLP_{signal}_") for signal in ("METRICS", "TRACES")}
    assert documented == settings.names() | gateway.names()


def test_the_metrics_table_names_every_metric_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new metric is documented with it."""
    created: set[str] = set()

    class Meter:
        """A stand-in that only notes names."""

        def __getattr__(self, kind: str) -> object:
            return lambda name, *_arguments, **_options: created.add(name)

    idle = Snapshot(queue_depth=0, queue_capacity=1, busy=0.0, rtf=0.0, buffered=0.0, fleet=FleetFigures())
    Metrics(Meter(), Tallies(), lambda: idle)  # type: ignore[arg-type]
    providers = SimpleNamespace(meter=Meter(), tracer=None)
    monkeypatch.setattr("transcriber.telemetry.gateway.Providers", lambda _options: providers)
    surroundings = SimpleNamespace(connected=True, reconnects=0, count=0)
    GatewayTelemetry(TelemetryOptions(), Figures(), surroundings)
    assert first_column(page("metrics")) == created


def test_every_gap_reason_is_explained() -> None:
    """An operator finds each reason, with what to do about it."""
    assert first_column(section(page("operations"), "What a gap means")) == {reason.value for reason in GapReason}


def test_every_header_is_documented() -> None:
    """The wire protocol's headers are those that the parser reads."""
    assert {name for name in first_column(page("protocol")) if name[0].isupper() or name == "traceparent"} == {*NAMES}


def commands(name: str) -> list[list[str]]:
    """The commands of a session of noxfile.py in a complete environment, as nox itself prints them."""
    nox = [sys.executable, "-m", "nox", "--no-venv", "--noxfile", str(ROOT / "noxfile.py"), "-s", name]
    done = subprocess.run([*nox, "--", "--version"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^nox > (?!Running session|Session)(.+)$", done.stderr, re.MULTILINE)
    return [line.removesuffix(" --version").split() for line in found]


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    """Both install from the lock, install the package, and run pytest."""
    script = (ROOT / ".ci" / "run").read_text()
    command = next(line for line in README.splitlines() if "/pytest " in line)
    for step in ("--require-hashes -r requirements-dev.lock", "--no-deps -e ."):
        assert step in command
        assert step in script
    assert "\nnox --no-venv -s tests\n" in script
    assert commands("tests")[-1] == command.rpartition("/")[2].split() == ["pytest", "-n", "2"]


def test_the_readme_is_short() -> None:
    """At most 6 kB: what the program is, how to see it work, and where the rest is."""
    assert len(README.encode()) <= 6000


@pytest.mark.parametrize("file", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    """Every link inside the repository names an existing file and a heading in it."""
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", file.read_text()):
        name, _, anchor = target.partition("#")
        linked = (file.parent / name).resolve() if name else file
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text()), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    """Nobody reads a page without a link to it."""
    linked = {(ROOT / target).resolve() for target in re.findall(r"\]\(([^)#\s]+\.md)\)", README)}
    assert {path for path in PAGES if path.parent.name == "docs"} <= linked


def test_the_answers_on_what_to_change_name_at_most_three_files() -> None:
    """Each of them is in the package, or next to it."""
    rows = re.findall(
        r"^\| (an?(?:other)? .+?) \| (.+) \|$", section(page("development"), "What to change for what"), re.MULTILINE
    )
    answers = {change: set(re.findall(r"`([\w/]+\.(?:py|json))`", answer)) for change, answer in rows}
    six = {"a new event on the wire", "another voice activity detector", "a new metric", "a new command"}
    assert six | {"a second engine", "another protocol of live speech"} <= answers.keys()
    for names in answers.values():
        assert 1 <= len(names) <= 3
        assert all((ROOT / "transcriber" / name).is_file() or (ROOT / name).is_file() for name in names), names
