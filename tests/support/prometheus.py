"""A real Prometheus that scrapes what a test runs, and answers its questions."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

import pytest
from harness import PATIENCE, free_port

PROMETHEUS = shutil.which("prometheus")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus on the PATH to ask")


class Prometheus:
    """A prometheus process on a free loopback port; `job` is scraped on the given ports once a second."""

    def __init__(self, folder: Path, job: str, ports: list[int]) -> None:
        self._folder = folder
        targets = [f"127.0.0.1:{port}" for port in ports]
        self._config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": job, "static_configs": [{"targets": targets}]}],
        }

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "prometheus.yml"
        config.write_text(json.dumps(self._config))  # JSON is YAML
        address = f"127.0.0.1:{free_port()}"
        self._url = f"http://{address}"
        self._process = subprocess.Popen(
            [
                str(PROMETHEUS),
                f"--config.file={config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=error",
            ]
        )
        try:
            self._until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(f"{self._url}/-/ready", timeout=PATIENCE):
                    return
            except urllib.error.HTTPError as error:
                error.close()
            except OSError:
                pass
            assert time.monotonic() < deadline, "prometheus did not start"
            assert self._process.poll() is None, "prometheus ended"
            time.sleep(0.05)

    def until(self, condition: str, patience: float = 2 * PATIENCE) -> None:
        """Wait until the query has a result."""
        deadline = time.monotonic() + patience
        while not self.query(condition):
            assert time.monotonic() < deadline, f"prometheus never saw {condition}"
            time.sleep(0.2)

    def query(self, expr: str, at: float | None = None) -> list[float]:
        """The value of each series at that time, by default now."""
        result = self._ask("query", query=expr, **({} if at is None else {"time": at}))["result"]
        return [float(series["value"][1]) for series in result]

    def query_range(self, expr: str, start: float, end: float) -> list[float]:
        """All values of all series, one a second."""
        result = self._ask("query_range", query=expr, start=start, end=end, step=1)["result"]
        return [float(value) for series in result for _, value in series["values"]]

    def label_values(self, label: str, series: str) -> list[str]:
        return list(self._ask(f"label/{label}/values", **{"match[]": series}))

    def _ask(self, what: str, **parameters: str | float) -> Any:
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                pytest.fail(f"{error.read().decode()}: {parameters}")
