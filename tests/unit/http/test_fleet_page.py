"""The fleet page: its two paths, and a message that stays small for the largest fleet."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator

import pytest
from viewer import Viewer

from transcriber.domain.measurements import Snapshot, Tallies
from transcriber.fleet.plan import Member, Ownership, Plan
from transcriber.fleet.view import view
from transcriber.http.acceptor import HealthOptions
from transcriber.http.fleet_page import compact
from transcriber.http.overview import PageState
from transcriber.http.server import HealthServer
from transcriber.http.status_page import StatusPage
from transcriber.protocol.partitions import MOST_PARTITIONS

MEMBERS = {"a=1": Member(id="a=1", capacity=10.0, loads={0: 3.0}), "b=1": Member(id="b=1", since=1.0, capacity=5.0)}
SEEN = view(Plan((Ownership("a=1", 2), Ownership("b=1", 1, to="a=1"), Ownership())), MEMBERS) | {"fleet": "radio"}


def standing() -> PageState:
    snapshot = Snapshot(queue_depth=0, queue_capacity=8, busy=0.0, rtf=0.1, buffered=0.0)
    return PageState(state="ready", version="1.0", model="stub", max_latency=20.0, snapshot=snapshot, streams=0)


@pytest.fixture
async def server() -> AsyncIterator[HealthServer]:
    made = HealthServer(HealthOptions("127.0.0.1", 0), {}, StatusPage(Tallies(), standing, lambda: SEEN))
    await made.start()
    yield made
    await made.stop()


async def test_fleet_page_is_one_file_with_a_strict_policy(server: HealthServer) -> None:
    """Nothing comes from elsewhere, and the browser runs the page's own script and no other."""
    async with Viewer(server.port, "/fleet") as viewer:
        html = (await viewer.rest()).decode()
    assert viewer.status == "HTTP/1.1 200 OK"
    assert re.findall(r"\b(?:src|href)=\"([^\"]*)\"", html) == ["data:,"]
    assert "innerHTML" not in html
    (script,) = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in viewer.headers["Content-Security-Policy"]


async def test_events_carry_the_fleet_status(server: HealthServer) -> None:
    """What `transcriber fleet status --json` prints, with the partitions as rows."""
    async with Viewer(server.port, "/fleet/events") as viewer:
        seen = await viewer.view()
    for name in ("fleet", "mode", "load", "capacity", "moving", "moves", "without_owner", "coordinator"):
        assert seen[name] == SEEN[name]
    assert [(m["name"], m["partitions"]) for m in seen["members"]] == [("a", 1), ("b", 1)]
    assert seen["owners"] == ["a=1", "b=1"]
    assert seen["partitions"] == [[0, -1, 2, 3.0], [1, 0, 1, 0.0], [-1, -1, 0, 0.0]]


async def test_status_page_says_whether_there_is_a_fleet(server: HealthServer) -> None:
    """Then it links to the other page. Without a fleet, that page is not there."""
    async with Viewer(server.port) as viewer:
        assert (await viewer.view())["fleet"] is True
    alone = HealthServer(HealthOptions("127.0.0.1", 0), {}, StatusPage(Tallies(), standing))
    await alone.start()
    async with Viewer(alone.port) as viewer:
        assert (await viewer.view())["fleet"] is False
    for path in ("/fleet", "/fleet/events"):
        async with Viewer(alone.port, path) as viewer:
            assert viewer.status == "HTTP/1.1 404 Not Found"
    await alone.stop()


@pytest.mark.parametrize("path", ["/fleet", "/fleet/events"])
async def test_fleet_page_is_refused_under_a_strangers_name(server: HealthServer, path: str) -> None:
    """As the status page is."""
    async with Viewer(server.port, path, host="rebound.example.com") as viewer:
        assert viewer.status == "HTTP/1.1 421 Misdirected Request"


def test_message_of_the_largest_fleet_is_bounded() -> None:
    """A hundred members and the most partitions fit into what the kernel holds for a viewer."""
    names = [f"transcriber-{n}-8080=0123abcd" for n in range(100)]
    members = {name: Member(id=name, since=1e9, capacity=123.45) for name in names}
    rows = tuple(Ownership(names[p % 100], 12, names[(p + 1) % 100]) for p in range(MOST_PARTITIONS))
    seen = json.dumps(compact(view(Plan(rows), members)), separators=(",", ":"))
    assert len(seen) < 128 * 1024
