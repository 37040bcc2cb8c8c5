"""A real Prometheus on loopback that scrapes a daemon with the alert rules, faster than in real life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from harness import PATIENCE, free_port
from places import ROOT

ALERTS = ROOT / "k8s" / "monitoring" / "alerts.yaml"


def sped_up(rules: dict[str, Any], minute: int = 1) -> dict[str, Any]:
    """The rules with every minute made so many seconds, in `for` and in windows alike; thresholds stay.

    Scraped once a second instead of once a minute, each window holds as many samples as in real life, or more.
    """
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert not re.search(r"\b\d+[shd]\b", rule["expr"] + rule["for"]), "a duration that is not in minutes"
        for key in ("expr", "for"):
            rule[key] = re.sub(r"\b(\d+)m\b", lambda found: f"{minute * int(found[1])}s", rule[key])
    return rules


class Prometheus:
    """Scrapes 127.0.0.1:`target` once a second; skips the test where there is no `prometheus` on PATH."""

    def __init__(self, folder: Path, target: int, minute: int = 1) -> None:
        self._command = shutil.which("prometheus")
        if self._command is None:
            pytest.skip("prometheus is not on PATH (Debian's package `prometheus` has it)")
        self._folder = folder
        self._port = free_port()
        self._minute = minute
        folder.mkdir()
        (folder / "alerts.yaml").write_text(yaml.safe_dump(sped_up(yaml.safe_load(ALERTS.read_text()), minute)))
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [
                {"job_name": "transcriber", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]},
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))

    async def __aenter__(self) -> Self:
        log = (self._folder / "log").open("wb")
        self._process = await asyncio.create_subprocess_exec(
            str(self._command),
            f"--config.file={self._folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                await self._get("/-/ready")
                return self
            assert self._process.returncode is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "prometheus did not start"
            await asyncio.sleep(0.1)

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _get(self, path: str, **parameters: str) -> bytes:
        query = urllib.parse.urlencode(parameters)
        return await asyncio.to_thread(_fetch, f"http://127.0.0.1:{self._port}{path}?{query}")

    def seconds(self, minutes: int) -> int:
        """The seconds that so many minutes of the rules take here."""
        return minutes * self._minute

    async def alerts(self) -> dict[str, str]:
        """Name to `pending` or `firing`, at this moment."""
        found = json.loads(await self._get("/api/v1/alerts"))["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert["state"] for alert in found}

    async def query(self, expression: str) -> dict[str, float]:
        """The value of each series, by its alert name; of one without, by an empty one."""
        found = json.loads(await self._get("/api/v1/query", query=expression))["data"]["result"]
        return {series["metric"].get("alertname", ""): float(series["value"][1]) for series in found}

    async def until_seen(self, expression: str) -> None:
        """Wait until this has a result."""
        async with asyncio.timeout(PATIENCE):
            while not await self.query(expression):  # noqa: ASYNC110 - it tells when it is asked
                await asyncio.sleep(0.1)

    async def fired(self) -> set[str]:
        """Every alert that has fired since the start, though it may be over."""
        return set(await self.query('count_over_time(ALERTS{alertstate="firing"}[1h])'))

    async def until_firing(self, *names: str, patience: float) -> dict[str, float]:
        """Wait until each of these has fired; returns after how many seconds."""
        begin = time.monotonic()
        after: dict[str, float] = {}
        while set(names) - after.keys():
            firing = {name for name, state in (await self.alerts()).items() if state == "firing"}
            after |= {name: time.monotonic() - begin for name in firing - after.keys()}
            assert time.monotonic() - begin < patience, f"of {names} only {set(after)} fired; {await self.alerts()}"
            await asyncio.sleep(0.2)
        return after


@contextlib.asynccontextmanager
async def doctored(port: int, source: int, seconds: float) -> AsyncIterator[None]:
    """A stand-in for a daemon that miscounts: what `source` exports, with `seconds` more received than there were."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.readline()).strip():
            pass
        text = (await asyncio.to_thread(_fetch, f"http://127.0.0.1:{source}/metrics")).decode()
        received = re.compile(r'^(transcriber_audio_seconds_total\{.*fate="received".*\}) (.*)$', re.MULTILINE)
        body = received.sub(lambda found: f"{found[1]} {float(found[2]) + seconds}", text).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bytes(answer.read())
