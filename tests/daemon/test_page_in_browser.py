"""The status page in a real browser: words as they come, foreign text as text, and a layout that fits a phone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser import Browser, find_chromium
from harness import Client, Daemon, Speech, s16

from transcriber.domain.events import Suppressed
from transcriber.domain.measurements import Snapshot, Tallies
from transcriber.domain.results import Latency, Recognition, Segment, Transcript
from transcriber.domain.timeline import Gap, GapReason, Origin
from transcriber.http.acceptor import HealthOptions
from transcriber.http.overview import PageState
from transcriber.http.server import HealthServer
from transcriber.http.status_page import StatusPage

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no chromium, chromium-browser or google-chrome on PATH"
)

SECOND = 16_000
NASTY = (
    "<b>x</b> <img src=x onerror=\"document.title='taken over'\"> &amp; <script>document.title='taken over'</script>"
)


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with Browser(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
async def shown() -> AsyncIterator[SimpleNamespace]:
    """The page with figures of the test's own making."""
    tallies = Tallies()
    snapshot = Snapshot(
        queue_depth=3, queue_capacity=8, busy=0.0, rtf=0.1, buffered=0.0, pending=1.0, lag_chunks=5, lag_seconds=2.0
    )
    standing = PageState(
        state="ready", version="1.0", model=NASTY, max_latency=20.0, snapshot=snapshot, streams=1, lags=True
    )
    page = StatusPage(tallies, lambda: standing)
    server = HealthServer(HealthOptions("127.0.0.1", 0), {}, page)
    await server.start()
    yield SimpleNamespace(tallies=tallies, page=page, server=server, url=f"http://127.0.0.1:{server.port}/")
    await server.stop()


def speak(shown: SimpleNamespace, text: str, stream: str = "s1") -> None:
    shown.tallies.audio.add(stream, "received", 4 * SECOND)
    shown.tallies.audio.add(stream, "transcribed", 3 * SECOND)
    recognition = Recognition((Segment(text=text, start=0, end=SECOND, confidence=0.9),), "en", "stub")
    latency = Latency(0.1, 0.4, 0.5)
    shown.page.add(
        Transcript(
            origin=Origin(stream, "x"),
            sequence=0,
            start=61 * SECOND,
            end=64 * SECOND,
            recognition=recognition,
            latency=latency,
        )
    )


async def test_page_shows_the_words_of_real_speech(
    browser: Browser, client: Client, daemon: Daemon, demo_speech: Speech
) -> None:
    """A chunk on NATS becomes a line in the browser, without a reload and without a complaint."""
    port = (await daemon.logged("starting"))["health_port"]
    await browser.open(f"http://127.0.0.1:{port}/")
    await browser.until("document.getElementById('state').textContent === 'ready'")
    pcm = s16(demo_speech.samples)
    for start in range(0, len(pcm), 9600):
        await client.send(pcm[start : start + 9600], audio_session="run", audio_offset=start // 2)
    await client.send(audio_session="run", audio_event="end")
    said = "[...document.querySelectorAll('#lines p')].map((p) => p.textContent).reverse().join(' ')"
    await browser.until(f"{said} === '{demo_speech.words}'")
    await browser.until("document.getElementById('sum').textContent.includes('pending 0.00 s')")
    assert await browser.value("document.querySelector('#lines b').textContent") == "s1"
    assert browser.complaints == []


async def test_page_shows_markup_in_foreign_text_as_text(browser: Browser, shown: SimpleNamespace) -> None:
    """Markup in a text, a stream's name, a reason or the model's name is shown and does nothing."""
    speak(shown, NASTY, stream=NASTY)
    shown.page.add(Suppressed(origin=Origin("s1", "x"), start=0, end=SECOND, reason=NASTY, text=NASTY))
    shown.page.add(Gap(origin=Origin(NASTY, "x"), start=0, end=SECOND, reason=GapReason.DEADLINE))
    shown.tallies.chunks_dropped.add("s1", NASTY)
    await browser.open(shown.url)
    await browser.until("document.querySelectorAll('#lines li').length === 3")
    texts = await browser.value("[...document.querySelectorAll('#lines li')].map((li) => li.textContent)")
    assert texts[0].startswith(NASTY)
    assert f"suppressed: {NASTY}" in texts[1]
    assert texts[2].startswith(NASTY)
    assert texts[2].endswith(NASTY)
    assert await browser.value("document.querySelector('#streams td').textContent") == NASTY
    assert await browser.value("document.querySelector('#drops td').textContent") == NASTY
    assert await browser.value("document.getElementById('about').textContent") == f"{NASTY} · version 1.0"
    assert await browser.value("document.querySelectorAll('main b b, img, main script').length") == 0
    assert await browser.value("document.title") == "transcriber"
    assert browser.complaints == []


async def test_the_browser_refuses_markup_from_a_script(browser: Browser, shown: SimpleNamespace) -> None:
    """A later mistake in the script could not make markup of text either."""
    await browser.open(shown.url)
    await browser.until("document.querySelector('#figures b')")
    attempt = "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'done'; } catch (e) { return e.name; } })()"
    assert await browser.value(attempt) == "TypeError"


async def test_page_shows_figures_where_they_belong(browser: Browser, shown: SimpleNamespace) -> None:
    """Queue against capacity, latency against the promise, seconds by fate, positions as a clock shows them."""
    speak(shown, "train four")
    shown.tallies.audio.add("s1", GapReason.QUEUE_FULL, SECOND // 2)
    shown.tallies.jobs_dropped.add("s1", GapReason.QUEUE_FULL)
    await browser.open(shown.url)
    await browser.until("document.querySelector('#lines p')")
    boxes = await browser.value("[...document.querySelectorAll('.figure')].map((f) => f.innerText.split('\\n'))")
    assert [list(filter(None, box)) for box in boxes] == [
        ["Queue", "3", "of 8 jobs"],
        ["End to end", "500 ms", "p95 of 20 s promised"],
        ["Worker", boxes[2][1], "busy"],
        ["Real-time factor", "0.10", "of the engine"],
        ["Lag", "2.00 s", "5 chunks stored"],
    ]
    drops = await browser.value("[...document.querySelectorAll('#drops td')].map((cell) => cell.textContent)")
    assert drops == ["queue_full", "0.50 s", "1", ""]
    total = "received 4.00 s =transcribed 3.00 s +silent 0.00 s +gap 0.50 s +pending 1.00 s"
    assert await browser.value("document.getElementById('sum').textContent") == total
    assert "01:01.00 \u2013 01:04.00" in await browser.value("document.querySelector('#lines li').textContent")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (320, "dark"), (1200, "dark")])
async def test_page_is_no_wider_than_the_screen(
    browser: Browser, shown: SimpleNamespace, width: int, scheme: str
) -> None:
    """A long name, a long word and many streams fit. The page is dark where that is wished."""
    speak(shown, "x" * 300)
    for number in range(30):
        speak(shown, "train four", stream=f"{number}-" + "s" * 60)
    await browser.open(shown.url, width, 844, scheme)
    await browser.until("document.querySelectorAll('#lines li').length === 20")
    assert await browser.value("document.documentElement.scrollWidth") <= width
    ink = await browser.value("getComputedStyle(document.body).color")
    assert ink == ("rgb(230, 233, 239)" if scheme == "dark" else "rgb(27, 31, 39)")


async def test_page_says_when_the_daemon_is_gone(browser: Browser, shown: SimpleNamespace) -> None:
    """The last figures stay, marked as old, until the daemon is back."""
    speak(shown, "train four")
    await browser.open(shown.url)
    await browser.until("document.querySelector('#lines p')")
    await shown.server.stop()
    await browser.until("document.getElementById('state').textContent.startsWith('not connected')")
    assert await browser.value("document.getElementById('main').className") == "old"
    again = HealthServer(HealthOptions("127.0.0.1", shown.server.port), {}, shown.page)
    await again.start()
    await browser.until("document.getElementById('state').textContent === 'ready'")
    assert await browser.value("document.getElementById('main').className") == ""
    await again.stop()
