"""The page itself: what is sent, what a browser may do with it, and that the probes keep working."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator

import pytest
from viewer import Viewer

from transcriber.domain.measurements import Snapshot, Tallies
from transcriber.domain.timeline import Gap, GapReason, Origin
from transcriber.http.acceptor import HealthOptions
from transcriber.http.overview import PageState
from transcriber.http.server import HealthServer
from transcriber.http.status_page import StatusPage


def standing() -> PageState:
    return PageState(
        state="ready",
        version="1.0",
        model="stub",
        max_latency=20.0,
        snapshot=Snapshot(queue_depth=0, queue_capacity=8, busy=0.0, rtf=0.1, buffered=0.0),
        streams=0,
    )


@pytest.fixture
def page() -> StatusPage:
    return StatusPage(Tallies(), standing)


@pytest.fixture
async def server(page: StatusPage) -> AsyncIterator[HealthServer]:
    checks = {"/livez": lambda: None, "/readyz": lambda: "draining"}
    made = HealthServer(HealthOptions("127.0.0.1", 0), checks, page)
    await made.start()
    yield made
    await made.stop()


async def test_the_page_is_one_file_that_loads_nothing_from_anywhere(server: HealthServer) -> None:
    """It works without internet: no script, style, picture or font comes from elsewhere."""
    async with Viewer(server.port, "/") as viewer:
        html = (await viewer.rest()).decode()
    assert viewer.status == "HTTP/1.1 200 OK"
    assert viewer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert int(viewer.headers["Content-Length"]) == len(html.encode())
    assert re.findall(r"https?://[^\"]*", html) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    assert re.findall(r"\b(?:src|href)=\"([^\"]*)\"", html) == ["data:,"]
    assert '<meta name="viewport"' in html
    assert "prefers-color-scheme: dark" in html


async def test_foreign_text_never_becomes_markup(server: HealthServer) -> None:
    """The script uses textContent only, and the browser is told to refuse anything else."""
    async with Viewer(server.port, "/") as viewer:
        html = (await viewer.rest()).decode()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"):
        assert not re.search(re.escape(way), html), way
    policy = dict(part.split(" ", 1) for part in viewer.headers["Content-Security-Policy"].split("; "))
    for tag in ("style", "script"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert viewer.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_events_carry_what_was_told(server: HealthServer, page: StatusPage) -> None:
    """JSON in UTF-8, whatever the text holds: line breaks, another script, half a character."""
    page.add(Gap(origin=Origin("s1\r\n\r\ndata: 字\ud800", "x"), start=0, end=16_000, reason=GapReason.DEADLINE))
    async with Viewer(server.port) as viewer:
        seen = await viewer.view()
    assert seen["state"] == "ready"
    assert seen["lines"][0]["stream"] == "s1\r\n\r\ndata: 字?"
    assert seen["lines"][0]["at"] == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/", "200 OK"),
        ("HEAD", "/events", "200 OK"),
        ("GET", "/?theme=dark", "200 OK"),
        ("POST", "/", "405 Method Not Allowed"),
        ("POST", "/events", "405 Method Not Allowed"),
        ("GET", "/index.html", "404 Not Found"),
        ("GET", "/livez", "200 OK"),
        ("GET", "/readyz", "503 Service Unavailable"),
    ],
)
async def test_every_request_gets_its_status(server: HealthServer, method: str, path: str, status: str) -> None:
    """GET and HEAD work on the page's two paths. The probes are as they are without the page."""
    async with Viewer(server.port, path, method) as viewer:
        body = await viewer.rest()
    assert viewer.status == f"HTTP/1.1 {status}"
    assert (body == b"") == (method == "HEAD")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", "200 OK"),
        ("127.0.0.1:8080", "200 OK"),
        ("[::1]:8080", "200 OK"),
        ("transcriber-radio-1", "200 OK"),
        ("transcriber.media.svc.cluster.local", "200 OK"),
        ("rebound.example.com:8080", "421 Misdirected Request"),
        ("127.0.0.1.example.com", "421 Misdirected Request"),
        ("localhost.example.com.", "421 Misdirected Request"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/events"])
async def test_page_is_refused_under_a_strangers_host_name(
    server: HealthServer, path: str, host: str, status: str
) -> None:
    """A web page that points its own name at this machine reads no transcripts."""
    async with Viewer(server.port, path, host=host) as viewer:
        assert viewer.status == f"HTTP/1.1 {status}"
        if status.startswith("421"):
            name = host.removesuffix(":8080")
            allowed = "addresses, names without a dot, .internal, .local, .localhost, .svc"
            assert json.loads(await viewer.rest()) == {"error": f"Host: {name}; allowed: {allowed}"}


async def test_the_probes_answer_to_any_name(server: HealthServer) -> None:
    """Their answers are no secret."""
    async with Viewer(server.port, "/livez", host="rebound.example.com") as probe:
        assert probe.status == "HTTP/1.1 200 OK"


async def test_a_viewer_may_stay_longer_than_a_request_may_take(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit on how long a client takes to say what it wants is not one on how long it looks."""
    monkeypatch.setattr("transcriber.http.acceptor._ANSWER_SECS", 0.1)
    monkeypatch.setattr("transcriber.http.viewers._INTERVAL_SECS", 0.05)
    async with Viewer(server.port) as viewer:
        assert [(await viewer.view())["state"] for _ in range(10)] == ["ready"] * 10


async def test_probes_answer_when_every_viewers_place_is_taken(server: HealthServer) -> None:
    """Sixteen viewers and one too many change nothing for the kubelet."""
    looking = [Viewer(server.port) for _ in range(17)]
    for viewer in looking:
        await viewer.__aenter__()
    assert [v.status for v in looking].count("HTTP/1.1 503 Service Unavailable") == 1
    async with Viewer(server.port, "/livez") as probe:
        assert probe.status == "HTTP/1.1 200 OK"
    for viewer in looking:
        await viewer.__aexit__()
