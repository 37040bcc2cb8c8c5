"""A real Prometheus scrapes real daemons. Each alert fires for a real fault, and none in a calm run."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from alert_rules import RULES, RUNBOOK
from alerting import Prometheus, sped_up
from faults import FAULTS, RATE, Fault, Site, overload, talk
from harness import QUICK, Speech, free_port

PATIENCE = 120.0  # seconds: ten to thirty are due, and the machine may be busy
LINGER = 10.0  # seconds: as long as the slowest alert waits, so that one without cause would fire, too


@pytest.fixture
async def site(request: pytest.FixtureRequest, tmp_path: Path, heldout: Speech) -> AsyncIterator[Site]:
    target = free_port()
    fault = getattr(request.node, "callspec", None) and request.node.callspec.params.get("fault")
    async with (
        Prometheus(tmp_path / "prometheus", target, fault.minute if fault else 1) as prometheus,
        contextlib.AsyncExitStack() as stack,
    ):
        made = Site(tmp_path, heldout, prometheus, target, stack)
        yield made
        await made.end()


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, str, float]]]:
    """Alert, fault and seconds until it fired; printed at the end."""
    rows: list[tuple[str, str, float]] = []
    yield rows
    for alert, fault, seconds in rows:
        print(f"\n{alert:24} {seconds:4.0f} s after {fault}", end="")
    print()


async def test_an_overload_raises_the_alarm(site: Site) -> None:
    """At twenty times real time against a slow engine, saturation and drops fire, and no other alert."""
    await overload(site)
    await site.prometheus.until_firing("TranscriberSaturated", "TranscriberDropping", patience=PATIENCE)
    assert await site.prometheus.fired() == {"TranscriberSaturated", "TranscriberDropping"}


@pytest.mark.parametrize("seconds", [12, pytest.param(90, marks=pytest.mark.slow)])
async def test_a_calm_run_raises_no_alarm(site: Site, seconds: float) -> None:
    """The real model works in real time, longer than any alert waits. It is measured, and no alert fires."""
    server = site.server()
    client = await site.client(server.url)
    await site.daemon(server.url, **QUICK, **RATE)
    talking = asyncio.create_task(talk(client, site.speech))
    await asyncio.wait({talking}, timeout=seconds)
    assert await site.prometheus.fired() == set()
    assert set((await site.prometheus.query("sum(transcriber_jobs_enqueued_total) > 0")).keys()) == {""}
    assert await site.prometheus.query(f"count_over_time(up[1h]) >= {seconds / 2}")
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.make.__name__)
async def test_a_fault_raises_its_alarm(site: Site, table: list[tuple[str, str, float]], fault: Fault) -> None:
    """A lasting fault makes its own alerts fire, and no others but those that follow from it."""
    await fault.make(site)
    after = await site.prometheus.until_firing(*fault.due, patience=PATIENCE)
    table += [(alert, fault.words, after[alert]) for alert in fault.due]
    await asyncio.sleep(LINGER * fault.minute)
    assert set(fault.due) <= await site.prometheus.fired() <= {*fault.due, *fault.may}


def test_every_alert_has_its_fault_and_the_runbook_tells_which() -> None:
    due = [(alert, fault.words) for fault in FAULTS for alert in fault.due]
    assert sorted(alert for alert, _ in due) == sorted(RULES)
    told = re.findall(r"^\| (Transcriber\w+) \| (.*) \|$", RUNBOOK, re.MULTILINE)
    assert sorted(told) == sorted(due)


def test_rules_sped_up_keep_thresholds_and_shorten_minutes() -> None:
    rule = {"expr": "rate(x_5m[5m]) > 5 + y[30m] offset 1m", "for": "10m", "annotations": {"summary": "over 5m"}}
    assert sped_up({"groups": [{"rules": [rule | {"for": "2m"}]}]}, 3)["groups"][0]["rules"][0]["for"] == "6s"
    assert sped_up({"groups": [{"rules": [rule]}]})["groups"][0]["rules"] == [
        {"expr": "rate(x_5m[5s]) > 5 + y[30s] offset 1s", "for": "10s", "annotations": {"summary": "over 5m"}}
    ]
