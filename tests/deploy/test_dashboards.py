"""The dashboards in k8s/monitoring: generated, complete, and every panel shows what real daemons did."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chaos import durable, jetstream_server, publish, set_up_streams
from harness import PATIENCE, QUICK, Client, Daemon, NatsServer, Speech, free_port, s16
from metric_names import FLEET, OURS, PROMISED, scraped_name
from places import ROOT
from prometheus import Prometheus, needs_prometheus

MONITORING = ROOT / "k8s" / "monitoring"
BOARDS = {name: json.loads((MONITORING / "dashboards" / f"{name}.json").read_text()) for name in ("stream", "fleet")}
PANELS = [(name, p) for name, board in BOARDS.items() for p in board["panels"] if p["type"] != "row"]
EXPORTED = {
    f"{scraped_name(name)}{suffix}"
    for name, (kind, _, _) in (PROMISED | OURS | FLEET).items()
    for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
}


def each_panel(function):
    named = [pytest.param(name, panel, id=f"{name}: {panel['title']}") for name, panel in PANELS]
    return pytest.mark.parametrize(("board", "panel"), named)(function)


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:transcriber|process)_\w+", text))


def test_committed_dashboards_are_what_the_script_writes(tmp_path: Path) -> None:
    """Nobody edited the JSON by hand, and nobody forgot to run the script."""
    subprocess.run([sys.executable, ROOT / "tools" / "dashboards" / "dashboards.py", tmp_path], check=True)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in (MONITORING / "dashboards").iterdir()}


@each_panel
def test_panel_asks_for_exported_metrics_and_explains_itself(board: str, panel: dict[str, Any]) -> None:
    """Its metrics exist. It has one sentence on good and bad, a unit, and the chosen data source."""
    for target in panel["targets"]:
        assert metrics_in(target["expr"])
        assert metrics_in(target["expr"]) <= EXPORTED
        assert target["datasource"]["uid"] == "${datasource}"
    assert panel["datasource"]["uid"] == "${datasource}"
    assert re.fullmatch(r"[^.]*[Gg]ood is [^.]*\.", panel["description"])
    if panel["type"] != "state-timeline":
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["options"]["yAxis"]["unit"]


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_panels_have_a_place_and_a_name_of_their_own(board: dict[str, Any]) -> None:
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])
    for one, other in itertools.combinations(board["panels"], 2):
        assert one["id"] != other["id"]
        assert one["title"] != other["title"]
        assert not overlap(one["gridPos"], other["gridPos"])
    assert metrics_in(json.dumps(board)) <= EXPORTED  # the variables, too


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in ("xw", "yh"))


def test_every_exported_metric_is_on_a_board() -> None:
    shown = {name.removesuffix("_bucket") for name in metrics_in(json.dumps(BOARDS))}
    assert shown == {scraped_name(name) for name in PROMISED | OURS | FLEET}


@dataclass(frozen=True)
class Played:
    """A Prometheus that has seen a live daemon, and a durable one that was killed once."""

    prometheus: Prometheus
    start: float
    end: float

    def choices(self, board: str) -> dict[str, list[str]]:
        """The values that a reader may choose from, by the variables' own queries."""
        found: dict[str, list[str]] = {}
        for variable in BOARDS[board]["templating"]["list"]:
            if variable["type"] == "query":
                series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
                every = {name: "|".join(values) for name, values in found.items()}
                found[label] = self.prometheus.label_values(label, substitute(series, every))
        return found

    def ask(self, board: str, target: dict[str, Any], stream: str = "live", *, last: bool = False) -> list[float]:
        """The values that a panel draws over the whole run (or the last of each series), with all daemons chosen."""
        chosen = {name: "|".join(values) for name, values in self.choices(board).items()} | {"stream": stream}
        span = {"__rate_interval": "10s", "__range": f"{math.ceil(self.end - self.start)}s"}
        expr = substitute(target["expr"], chosen | span)
        if last or target["instant"]:
            return self.prometheus.query(expr, self.end)
        return self.prometheus.query_range(expr, self.start, self.end)

    def drawn(
        self, board: str, title: str, legend: str = "", stream: str = "live", *, last: bool = False
    ) -> list[float]:
        """The values of one query of the panel with that title: the first, or the one with that legend."""
        [panel] = [panel for name, panel in PANELS if (name, panel["title"]) == (board, title)]
        target = next(t for t in panel["targets"] if legend in {"", t["legendFormat"]})
        return [value for value in self.ask(board, target, stream, last=last) if not math.isnan(value)]


def substitute(text: str, variables: dict[str, str]) -> str:
    for name, value in variables.items():
        text = text.replace(f"${name}", value)
    assert "$" not in text
    return text


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, heldout: Speech) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("played")
    ports = [free_port(), free_port()]
    start = time.time()
    with jetstream_server(folder) as server, Prometheus(folder / "prometheus", "transcriber", ports) as prometheus:
        yield Played(prometheus, start, asyncio.run(play(server, prometheus, heldout, ports)))


async def play(server: NatsServer, prometheus: Prometheus, heldout: Speech, ports: list[int]) -> float:
    """`live` speaks, then too much at once; `calls` is stored, and its daemon is killed. Returns when all was seen."""
    await set_up_streams(server.url)
    ours = QUICK | {"OTEL_METRICS_EXPORTER": "prometheus", "TRANSCRIPTION_QUEUE_CAPACITY": "1"}
    live = Daemon(server.url, **ours, HEALTH_PORT=str(ports[0]), AUDIO_SUBJECT="audio.live")
    stored = ours | durable(HEALTH_PORT=str(ports[1]), AUDIO_SUBJECT="audio.calls")
    async with Client(server.url) as client, contextlib.AsyncExitStack() as daemons:

        async def hear_live() -> None:
            await daemons.enter_async_context(live)
            await speak(client, heldout)
            await client.until_type("ended", stream="live")

        async def work_on_calls() -> None:
            await publish(server.url, heldout.cut(5, 6), "calls", session="before")
            async with Daemon(server.url, **stored) as killed:
                await client.until_type("ended", stream="calls", session="before")
                await asyncio.to_thread(prometheus.until, 'transcriber_jobs_enqueued_total{stream="calls"} > 0')
                killed.process.kill()
                await killed.ended()
            await publish(server.url, heldout.cut(6, 30), "calls", session="after")  # nobody takes it yet
            await daemons.enter_async_context(Daemon(server.url, **stored))
            await client.until_type("ended", 3 * PATIENCE, stream="calls", session="after")

        await asyncio.gather(hear_live(), work_on_calls())
        # Two scrapes more: the last step of a range lies up to a second before its end.
        scraped = "min(timestamp(transcriber_audio_pending_seconds))"
        await asyncio.to_thread(prometheus.until, f"{scraped} > {time.time() + 2}")
        return time.time()


async def speak(client: Client, heldout: Speech) -> None:
    """Three sentences in real time; then five in one message, of which a queue of one job takes the first alone."""
    headers = {"subject": "audio.live", "audio_sample_rate": heldout.rate, "audio_session": "x"}
    pcm, size = s16(heldout.cut(0, 3).samples), 2 * (heldout.rate // 10)
    for offset in range(0, len(pcm), size):
        await client.send(pcm[offset : offset + size], **headers)
        await asyncio.sleep(0.1)
    await client.send(s16(heldout.cut(0, 5).samples), audio_event="end", **headers)


@needs_prometheus
@each_panel
def test_every_query_of_a_panel_has_an_answer(played: Played, board: str, panel: dict[str, Any]) -> None:
    """A quantile is no number while no window was published. Somewhere in the run there is one."""
    for target in panel["targets"]:
        values = played.ask(board, target)
        assert [value for value in values if not math.isnan(value)], target["expr"]


@needs_prometheus
def test_variables_offer_every_daemon_and_every_stream(played: Played) -> None:
    """A variable that depends on another one takes its choice over."""
    fleet, stream = played.choices("fleet"), played.choices("stream")
    assert fleet["job"] == ["transcriber"]
    assert len(fleet["instance"]) == 2
    assert stream == fleet | {"stream": ["calls", "live"]}


@needs_prometheus
def test_the_boards_tell_what_happened(played: Played) -> None:
    """Too many windows came at once, one daemon was killed, stored audio had to wait, and the account adds up."""
    drawn = played.drawn
    assert max(drawn("stream", "Windows dropped by reason", "{{reason}}")) > 0
    assert max(drawn("stream", "Gaps by reason")) > 0
    assert 0 < drawn("stream", "Audio that became gaps")[0] < 1
    assert drawn("stream", "Audio that became gaps", stream="calls") == [0]
    assert max(drawn("stream", "End to end", "p95")) < min(drawn("stream", "End to end", "promise")) == 20_000
    assert max(drawn("stream", "Queue depth against capacity", "capacity of {{instance}}")) == 1
    assert 0 < max(drawn("stream", "Chunks that the VAD filtered")) <= 1
    assert drawn("stream", "Audio without a fate yet") == [pytest.approx(0, abs=1e-6)]

    assert drawn("stream", "Restarts") == [0]
    assert drawn("stream", "Restarts", stream="calls") == [1]
    assert drawn("fleet", "Restarts") == [1]
    for lag in ("Lag of stored audio, seconds", "Lag of stored audio, chunks"):
        assert max(drawn("stream", lag)) == 0
        assert max(drawn("stream", lag, stream="calls")) > 0

    assert drawn("fleet", "Daemons") == [2]
    assert drawn("fleet", "Daemons away from NATS") == [0]
    assert drawn("fleet", "Accounting difference", last=True) == [pytest.approx(0, abs=1e-6)] * 2
