"""What the gateway's pages are sent with: a policy that allows them nothing else, and to whom."""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import urlsplit

import pytest
from viewer import Viewer


@pytest.fixture
def port(address: str) -> int:
    found = urlsplit(address).port
    assert found is not None
    return found


def digest(body: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()}'"


@pytest.mark.parametrize(("path", "more"), [("/dashboard", ""), ("/mic", " 'self'")])
async def test_page_loads_nothing_and_may_do_nothing_else(port: int, path: str, more: str) -> None:
    """Its own style and script, by their hashes; the microphone's script of the audio thread is a file of ours."""
    async with Viewer(port, path) as viewer:
        html = (await viewer.body()).decode()
    assert viewer.status == "HTTP/1.1 200 OK"
    assert re.findall(r"https?://[^\"]*", html) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    assert re.findall(r"\b(?:src|href)=\"([^\"]*)\"", html) == ["data:,"]
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"):
        assert way not in html
    policy = dict(part.split(" ", 1) for part in viewer.headers["Content-Security-Policy"].split("; "))
    style, script = (re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[0] for tag in ("style", "script"))
    assert policy["style-src"] == digest(style)
    assert policy["script-src"] == digest(script) + more
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert viewer.headers["X-Content-Type-Options"] == "nosniff"
    assert viewer.headers["Cache-Control"] == "no-store"


async def test_worklet_is_a_script_and_nothing_else(port: int) -> None:
    async with Viewer(port, "/mic/worklet.js") as viewer:
        script = (await viewer.body()).decode()
    assert viewer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert 'registerProcessor("taker"' in script


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/events"])
async def test_figures_are_not_for_names_of_strangers(port: int, path: str) -> None:
    """A page elsewhere could point its own name at this machine, and read ours."""
    async with Viewer(port, path, host="rebound.example:8081") as viewer:
        assert viewer.status.startswith("HTTP/1.1 421 ")
    async with Viewer(port, path, host="gateway.internal") as viewer:
        assert viewer.status == "HTTP/1.1 200 OK"


async def test_dashboard_events_follow_each_other(port: int) -> None:
    """The first comes at once, then one a second, with the worker's state."""
    async with Viewer(port, "/dashboard/events") as viewer:
        first, second = await viewer.view(), await viewer.view()
    assert viewer.headers["Content-Type"] == "text/event-stream"
    assert second["now"] > first["now"]
    (worker,) = second["workers"]
    assert worker["model"] == "ggml-dispatch-mini"
    assert worker["memory"] > 0
