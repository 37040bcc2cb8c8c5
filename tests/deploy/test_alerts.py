"""The alert rules in k8s/monitoring: each fires when it should, and has its section in the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from alert_rules import ALERTS, K8S, RULE, RULES, RUNBOOK
from metric_names import FLEET, OURS, PROMISED, scraped_name
from places import DATA

from transcriber.domain.timeline import GapReason

SECTIONS = re.findall(r"^## (Transcriber\w+)$", RUNBOOK, re.MULTILINE)
CASES = sorted(DATA.glob("alerts_*.yaml"))


# What is a name in PromQL and no series: what the rules and the runbook use of it.
FUNCTIONS = {
    *("abs", "avg_over_time", "changes", "deriv", "histogram_quantile", "increase", "max_over_time", "min_over_time"),
    *("rate", "resets", "sum", "topk"),
}
WORDS = {"and", "or", "unless"}
VALUES = {"fate": {"received", "transcribed", "silent", "gap"}, "reason": set(GapReason), "stream": None, "le": None}


def exported() -> dict[str, set[str]]:
    """Every series of the daemon and its attributes, under Prometheus' names; a histogram is three series."""
    found = {}
    for name, (kind, _unit, attributes) in (PROMISED | OURS | FLEET).items():
        plain = scraped_name(name)
        gap = {"reason"} if plain == "transcriber_audio_seconds_total" else set()
        labels = {key.replace(".", "_") for key in attributes} | gap
        if kind == "histogram":
            found |= {f"{plain}_bucket": labels | {"le"}, f"{plain}_sum": labels, f"{plain}_count": labels}
        else:
            found[plain] = labels
    return found


def check_names(expression: str) -> None:
    """Every series in it is exported; every label that it asks for is one of that series, with values that occur."""
    bare = re.sub(r"\b(without|by)\s*\([^)]*\)|\[\w+\]", " ", expression)
    names = set(re.findall(r"[a-zA-Z_]\w*", re.sub(r"\{[^}]*\}", " ", bare)))
    series = exported()
    assert names - FUNCTIONS - WORDS <= series.keys()
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", bare):
        for label, operator, value in re.findall(r'(\w+)\s*(!?=~?|!~)\s*"([^"]*)"', matchers):
            if label not in {"job", "instance", "exported_job", "exported_instance"}:
                assert label in series[name]
                known = VALUES[label]
                assert known is None or set(value.split("|") if "~" in operator else [value]) <= known


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = shutil.which("promtool")
    if command is None:
        pytest.skip("promtool is not on PATH (Debian's package `prometheus` has it)")
    return subprocess.run(
        [command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def test_prometheus_accepts_the_rules() -> None:
    done = promtool("check", "rules", "--lint-fatal", ALERTS)
    assert done.returncode == 0, done.stdout
    assert f"{len(RULES)} rules found" in done.stdout


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_alerts_fire_and_do_not_fire(case: Path) -> None:
    """promtool runs the rules over made-up series; labels and annotations must be right to the letter."""
    done = promtool("test", "rules", case)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("answer", ["vector(0) > 1", "vector(1)"], ids=["never", "always"])
def test_rule_cases_notice_an_alert_that_always_or_never_fires(tmp_path: Path, answer: str) -> None:
    """In a copy whose rules all give the same answer, a case fails for every alert. So each is tested both ways."""
    broken = yaml.safe_load(ALERTS.read_text())
    for rule in (rule for group in broken["groups"] for rule in group["rules"]):
        rule["expr"] = answer
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(broken))
    failed: set[str] = set()
    for case in CASES:
        tests = yaml.safe_load(case.read_text()) | {"rule_files": ["alerts.yaml"]}
        (tmp_path / case.name).write_text(yaml.safe_dump(tests))
        done = promtool("test", "rules", tmp_path / case.name)
        assert done.returncode != 0
        failed |= set(re.findall(r"alertname: (\w+)", done.stdout))
    assert failed == set(RULES)


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_asks_only_for_what_the_daemon_exports(alert: str) -> None:
    check_names(RULES[alert]["expr"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_the_made_up_series_are_those_of_the_daemon(case: Path) -> None:
    """An alert on a series that nobody exports would prove nothing."""
    for test in yaml.safe_load(case.read_text())["tests"]:
        for series in test["input_series"]:
            check_names(series["series"])


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(alert: str) -> None:
    """Severity, patience, a summary with the daemon, a description with the value, and a section of the runbook."""
    rule = RULES[alert]
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"\d+m", rule["for"])
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook"}
    assert said["summary"].startswith("{{ or $labels.exported_instance $labels.instance }}")
    assert "$value" in said["description"]
    assert said["runbook"] == f"k8s/RUNBOOK.md#{alert.lower()}"


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert list(RULES) == SECTIONS


@pytest.mark.parametrize("alert", RULES)
def test_a_section_says_how_to_confirm_and_what_to_do(alert: str) -> None:
    """With queries that Prometheus can parse, over series that exist."""
    section = RUNBOOK.split(f"\n## {alert}\n")[1].split("\n## ")[0]
    assert "\nConfirm: " in section
    assert re.search(r"^Do(, by [\w ]+)?:", section, re.MULTILINE)
    queries = [line for block in re.findall(r"```promql\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    assert queries
    for query in queries:
        check_names(query)


def test_prometheus_can_parse_the_queries_of_the_runbook(tmp_path: Path) -> None:
    blocks = re.findall(r"```promql\n(.*?)```", RUNBOOK, re.DOTALL)
    queries = [line for block in blocks for line in block.splitlines()]
    made = [{"record": f"runbook:{n}", "expr": query} for n, query in enumerate(queries)]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": made}]}))
    done = promtool("check", "rules", tmp_path / "queries.yaml")
    assert done.returncode == 0, done.stdout


def test_links_inside_the_runbook_lead_somewhere() -> None:
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]*)\)", RUNBOOK)) <= anchors
    for target in re.findall(r"\]\(([\w./-]+)", RUNBOOK):
        assert (K8S / target).exists(), target


def test_operator_rule_is_what_the_runbook_command_makes(tmp_path: Path) -> None:
    """There is one source: the command changes nothing, and the groups are the same."""
    said = yaml.safe_load(RULE.read_text())
    assert (said["apiVersion"], said["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert said["spec"] == yaml.safe_load(ALERTS.read_text())
    shutil.copytree(K8S / "monitoring", tmp_path / "k8s" / "monitoring")
    command = RUNBOOK.split("```sh\n")[1].split("```")[0]
    subprocess.run(["sh", "-euc", command], cwd=tmp_path, check=True)
    assert (tmp_path / "k8s" / "monitoring" / RULE.name).read_text() == RULE.read_text()
    assert not (tmp_path / "k8s" / "monitoring" / "new").exists()
