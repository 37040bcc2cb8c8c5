"""The fleet page in a real browser, with a real fleet's figures and with names that try to be markup."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from browser import Browser, find_chromium
from fleets import FLEET, member, set_up_fleet, status
from harness import Daemon, NatsServer

from transcriber.domain.measurements import Snapshot, Tallies
from transcriber.fleet.plan import Member, Ownership, Plan
from transcriber.fleet.view import view
from transcriber.http.acceptor import HealthOptions
from transcriber.http.overview import PageState
from transcriber.http.server import HealthServer
from transcriber.http.status_page import StatusPage

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no chromium, chromium-browser or google-chrome on PATH"
)

NASTY = "<b>x</b><script>alert(1)</script>"
CELLS = "[...document.querySelectorAll('#members td')].map((cell) => cell.textContent)"


def standing() -> PageState:
    snapshot = Snapshot(queue_depth=0, queue_capacity=8, busy=0.0, rtf=0.1, buffered=0.0)
    return PageState(state="ready", version="1.0", model="stub", max_latency=20.0, snapshot=snapshot, streams=0)


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with Browser(tmp_path / "profile") as opened:
        yield opened


async def test_page_of_a_member_shows_its_fleet(browser: Browser, server: NatsServer) -> None:
    """The status page links to it, and it shows what `transcriber fleet status` prints."""
    await set_up_fleet(server.url, live=True)
    async with Daemon(server.url, **member(STATUS_PAGE="on")) as daemon:
        port = (await daemon.logged("starting"))["health_port"]
        await browser.open(f"http://127.0.0.1:{port}/")
        await browser.until("!document.getElementById('fleet').hidden")
        assert await browser.value("document.getElementById('fleet').href") == f"http://127.0.0.1:{port}/fleet"
        await browser.open(f"http://127.0.0.1:{port}/fleet")
        await browser.until("document.getElementById('state').textContent === 'at rest'")
        told = (await status(server.url))["members"][0]
        cells = await browser.value(CELLS)
        assert cells[:2] == [told["name"], "64"]
        assert cells[-1] == "makes the plans"
        assert await browser.value("document.querySelectorAll('#partitions span').length") == FLEET.partitions
        assert browser.complaints == []


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1200, "light")])
async def test_fleet_page_shows_names_as_text_and_fits(browser: Browser, width: int, scheme: str) -> None:
    """Names are foreign text. A partition without owner is what the page says first."""
    members = {f"{NASTY}=1": Member(id=f"{NASTY}=1", capacity=10.0, loads={0: 3.0}, draining=True)}
    rows = (Ownership(f"{NASTY}=1", 2), *[Ownership()] * 200)
    seen = view(Plan(rows), members) | {"fleet": NASTY}
    server = HealthServer(HealthOptions("127.0.0.1", 0), {}, StatusPage(Tallies(), standing, lambda: seen))
    await server.start()
    await browser.open(f"http://127.0.0.1:{server.port}/fleet", width, 844, scheme)
    await browser.until("document.getElementById('state').textContent === 'partitions without owner'")
    assert (await browser.value(CELLS))[0] == NASTY
    assert NASTY in await browser.value("document.getElementById('about').textContent")
    assert await browser.value("document.querySelectorAll('main td b, img').length") == 0
    assert await browser.value("document.querySelectorAll('#partitions .lost').length") == 200
    assert await browser.value("document.documentElement.scrollWidth") <= width
    assert browser.complaints == []
    await server.stop()
