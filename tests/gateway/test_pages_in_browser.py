"""The gateway's pages in a real browser: a microphone that is a recording, and figures as they come."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser import Browser, find_chromium
from harness import Speech
from served import served

from transcriber.gateway import keys

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no chromium, chromium-browser or google-chrome on PATH"
)

SAID = "[...document.querySelectorAll('#words p')].map((p) => p.textContent).join(' ')"
STATE = "document.getElementById('state').textContent"


@contextlib.asynccontextmanager
async def with_microphone(folder: Path, speech: Speech) -> AsyncIterator[Browser]:
    """A browser whose microphone plays a recording once, after half a second, and is allowed without a question."""
    file = folder / "spoken.wav"
    silence = np.zeros(speech.rate // 2, np.float32)
    soundfile.write(file, np.concatenate([silence, speech.samples, silence]), speech.rate, subtype="PCM_16")
    flags = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    async with Browser(folder / "profile", *flags, f"--use-file-for-fake-audio-capture={file}%noloop") as opened:
        yield opened


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with Browser(tmp_path / "profile") as opened:
        yield opened


async def test_microphone_page_shows_what_is_said(tmp_path: Path, address: str, demo_speech: Speech) -> None:
    """From the click on Start to the account after Stop: the words, in order, and no complaint of the browser."""
    spoken = demo_speech.cut(0, 2)
    async with with_microphone(tmp_path, spoken) as browser:
        await browser.open(f"{address}/mic")
        await browser.click("#button")
        await browser.until(f"{STATE} === 'listening'")
        await browser.until(f"{SAID}.split(' ').length >= {len(spoken.words.split())}")
        assert await browser.value(SAID) == spoken.words
        await browser.until("document.getElementById('queue').textContent.startsWith('1 worker ')")
        await browser.click("#button")
        await browser.until(f"{STATE} === 'done'")
        assert await browser.value("document.getElementById('account').textContent.includes(' + gap 0.00 s')")
        assert await browser.value("document.getElementById('open').textContent") == ""
        assert browser.complaints == []


async def test_microphone_page_says_why_there_is_no_microphone(browser: Browser, address: str) -> None:
    """Without a device, or without leave, nothing is sent."""
    await browser.open(f"{address}/mic")
    await browser.click("#button")
    await browser.until(f"{STATE}.startsWith('no microphone: ')")
    assert await browser.value("document.getElementById('button').textContent") == "Start"


async def test_dashboard_shows_workers_and_connections(browser: Browser, address: str) -> None:
    """The figures are the gateway's, and come again every second."""
    await browser.open(f"{address}/dashboard")
    await browser.until(f"{STATE} === 'serving'")
    boxes = await browser.value("[...document.querySelectorAll('.figure')].map((f) => f.innerText.split('\\n'))")
    figures = {title: value for title, value, *_ in (list(filter(None, box)) for box in boxes)}
    assert figures["Workers"] == "1"
    assert figures["Connections"].isdecimal()
    row = await browser.value("[...document.querySelectorAll('#workers tbody td')].map((cell) => cell.textContent)")
    assert row[1] == "ggml-dispatch-mini"
    assert row[2] == "audio.*"
    assert row[6].endswith(" of 1000")  # streams; one of another test may be about to end
    assert row[9].endswith(" MB")  # of memory
    assert row[10] == "\N{EN DASH}"  # no GPU
    await browser.until("document.querySelectorAll('.figure polyline')[0].getAttribute('points').split(' ').length > 2")
    assert browser.complaints == []


async def test_microphone_page_sends_the_key_that_it_is_given(tmp_path: Path, demo_speech: Speech) -> None:
    """As a subprotocol, the only place where a browser can put it. Without one, the page says that it was refused."""
    secret, line = keys.make("desk")
    (tmp_path / "keys").write_text(f"{line}\n")
    with served(tmp_path / "served", GATEWAY_KEYS=str(tmp_path / "keys")) as running:
        async with with_microphone(tmp_path, demo_speech.cut(0, 1)) as browser:
            await browser.open(f"{running.url}/mic")
            await browser.click("#button")
            await browser.until(f"{STATE}.startsWith('refused: ')")
            await browser.value(f"document.getElementById('key').value = '{secret}'")
            await browser.click("#button")
            await browser.until(f"{STATE} === 'listening'")
            await browser.click("#button")
            await browser.until(f"{STATE} === 'done'")
