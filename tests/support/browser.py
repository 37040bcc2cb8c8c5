"""Headless Chromium over its debugging pipe: open a page, ask it things, wait until they are so, take pictures."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, Self

PATIENCE = 60.0  # seconds: starting a browser on a busy machine takes some
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")
LINE_BYTES = 2**24  # a screenshot is one message


def find_chromium() -> str | None:
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class Browser:
    """One page in one browser, which ends with the context. `complaints` are the page's errors and refused loads."""

    def __init__(self, profile: Path, *flags: str) -> None:
        binary = find_chromium()
        assert binary is not None
        self._command = [binary, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"]
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._page: str | None = None
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []

    async def __aenter__(self) -> Self:
        (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
        redirect = f'exec "$@" 3<&{their_in} 4>&{their_out} >/dev/null 2>&1'  # where the browser looks for its pipe
        self._process = await asyncio.create_subprocess_exec(
            "bash", "-c", redirect, "bash", *self._command, pass_fds=(their_in, their_out), start_new_session=True
        )
        os.close(their_in)
        os.close(their_out)
        loop = asyncio.get_running_loop()
        self._out, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(our_out, "wb"))
        reader = asyncio.StreamReader(limit=LINE_BYTES)
        self._in, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(our_in, "rb")
        )
        self._reading = asyncio.create_task(self._read(reader))
        found = await self._ask("Target.getTargets")
        target = next(t["targetId"] for t in found["targetInfos"] if t["type"] == "page")
        self._page = (await self._ask("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self._ask(f"{domain}.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._out.close()
        self._in.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its helpers, too: the session is its own
        await self._process.wait()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            message = json.loads((await reader.readuntil(b"\0"))[:-1])
            match message:
                case {"id": number}:
                    self._asked.pop(number).set_result(message)
                case {"method": "Page.loadEventFired"}:
                    self._loaded.set()
                case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                    self.complaints.append(entry["text"])
                case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                    self.complaints.append(str(details))

    async def _ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        session = {"sessionId": self._page} if self._page is not None else {}
        self._out.write(json.dumps({"id": number, "method": method, "params": params} | session).encode() + b"\0")
        async with asyncio.timeout(PATIENCE):
            answer = await self._asked[number]
        assert "error" not in answer, answer
        return answer["result"]

    async def open(self, url: str, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        await self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self._ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._loaded.clear()
        await self._ask("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE):
            await self._loaded.wait()

    async def value(self, expression: str) -> Any:
        """The value that the page's own script would see. A promise is awaited."""
        done = await self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until this expression is true in the page; it is asked again whenever the page has changed."""
        waiting = f"""new Promise((resolve) => {{
            const watcher = new MutationObserver(check);
            function check() {{ if ({condition}) {{ watcher.disconnect(); resolve(true); }} }}
            watcher.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
            check();
        }})"""
        await self.value(waiting)

    async def click(self, selector: str) -> None:
        """Click in the middle of an element, as a person does: what needs a gesture gets one."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = await self.value(f"(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            await self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def picture(self) -> bytes:
        """The visible page as a PNG."""
        return base64.b64decode((await self._ask("Page.captureScreenshot", format="png"))["data"])
