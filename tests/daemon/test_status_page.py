"""The status page of the real daemon: real audio in both modes, and how the page is switched off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos import durable, jetstream_server, publish, set_up_streams, until_ended
from harness import QUICK, STUB, Client, Daemon, NatsServer, Speech, s16
from viewer import Viewer


async def health_port(daemon: Daemon) -> int:
    return int((await daemon.logged("starting"))["health_port"])


async def seen(port: int, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look until the figures are so."""
    async with Viewer(port) as viewer, asyncio.timeout(60):
        while not wanted(view := await viewer.view()):
            pass
    return view


def texts(view: dict[str, Any]) -> str:
    return " ".join(line["text"] for line in reversed(view["lines"]) if line["kind"] == "final")


def check_sum(row: dict[str, Any]) -> None:
    told = row["transcribed"] + row["silent"] + sum(row["gap"].values()) + row["pending"]
    assert told == pytest.approx(row["received"], abs=1e-6)


async def test_page_shows_the_words_and_the_fate_of_every_second(
    client: Client, daemon: Daemon, demo_speech: Speech
) -> None:
    """The fates add up during the speech and after it. Then the words are those of the recording."""
    pcm = s16(demo_speech.samples)
    async with Viewer(await health_port(daemon)) as viewer:
        for start in range(0, len(pcm), 9600):
            await client.send(pcm[start : start + 9600], audio_session="run", audio_offset=start // 2)
        await client.send(audio_session="run", audio_event="end")
        async with asyncio.timeout(60):
            while True:
                view = await viewer.view()
                for row in (view["audio"], *view["streams"]):
                    check_sum(row)
                if texts(view) == demo_speech.words and not view["audio"]["pending"]:
                    break
    assert view["state"] == "ready"
    assert view["model"] == "ggml-dispatch-mini"
    ended = await client.until_type("ended", session="run")
    assert view["audio"] == {name: ended[name] for name in ("received", "transcribed", "silent", "gap", "pending")}
    assert view["streams"] == [{"name": "s1", **view["audio"]}]
    finals = client.of("final")
    assert view["latency"]["windows"] == len(finals)
    lines = [line for line in reversed(view["lines"]) if line["kind"] == "final"]
    assert [(n["start"], n["end"], n["latency"]) for n in lines] == [
        (final["start"], final["end"], final["latency"]["end_to_end"]) for final in finals
    ]
    assert (view["drops"], view["lag"], view["active"]) == ([], None, 0)
    assert view["queue"]["depth"] == 0 < view["queue"]["capacity"]


async def test_page_shows_dropped_audio_with_its_reason(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """The queue is too short, and a chunk breaks the protocol: lines, seconds and counts say so."""
    slow = {"STUB_SECS": "1", "STUB_WARM_SECS": "0", "TRANSCRIPTION_QUEUE_CAPACITY": "1"}
    async with Daemon(nats_server.url, script=STUB, **QUICK | slow) as daemon:
        await client.send(
            s16(heldout.samples[: 15 * heldout.rate]), audio_sample_rate=heldout.rate, audio_session="run"
        )
        await client.send(b"odd", audio_session="run")
        view = await seen(await health_port(daemon), lambda v: len(v["drops"]) > 1 and not v["queue"]["depth"])
    check_sum(view["audio"])
    drops = {row["reason"]: row for row in view["drops"]}
    gaps = [line for line in view["lines"] if line["kind"] == "gap"]
    assert {line["reason"] for line in gaps} == {"queue_full"}
    assert drops["queue_full"]["windows"] == len(gaps)
    assert drops["queue_full"]["seconds"] == pytest.approx(sum(line["end"] - line["start"] for line in gaps))
    assert view["audio"]["gap"] == {"queue_full": drops["queue_full"]["seconds"]}
    assert drops["partial_frame"]["chunks"] == 1


async def test_durable_mode_feeds_the_page_too(tmp_path: Path, heldout: Speech) -> None:
    """The lines and sums are the same. The daemon's lag stands in place of a promise."""
    speech = heldout.cut(0, 4)
    with jetstream_server(tmp_path) as server:
        await set_up_streams(server.url)
        await publish(server.url, speech)
        async with Daemon(server.url, **durable()) as daemon:
            records = await until_ended(server.url)
            view = await seen(await health_port(daemon), lambda v: not v["audio"]["pending"])
    assert texts(view) == " ".join(r["text"] for r in records if r["type"] == "final" and r["text"])
    check_sum(view["audio"])
    assert view["audio"]["received"] == records[-1]["received"]
    assert view["lag"]["chunks"] == 0
    assert view["latency"]["limit"] is None


async def test_status_page_off_leaves_only_the_probes(nats_server: NatsServer, client: Client) -> None:
    """With STATUS_PAGE=off the health port answers its probes only."""
    async with Daemon(nats_server.url, STATUS_PAGE="off", **QUICK) as daemon:
        assert [await daemon.probe(path) for path in ("/", "/events", "/livez", "/readyz")] == [404, 404, 200, 200]
        assert await daemon.stop() == 0


async def test_the_daemon_stops_without_waiting_for_viewers(nats_server: NatsServer, client: Client) -> None:
    """Viewers see it drain, and their connections end with it."""
    async with Daemon(nats_server.url, **QUICK) as daemon, Viewer(await health_port(daemon)) as viewer:
        assert (await viewer.view())["state"] == "ready"
        begun = time.monotonic()
        assert await daemon.stop() == 0
        assert time.monotonic() - begun < 10
        await viewer.rest()
    assert daemon.stderr == ""


async def test_page_says_when_the_daemon_is_a_standby(tmp_path: Path) -> None:
    """It is ready to take over, and does not look as if it worked."""
    with jetstream_server(tmp_path) as server:
        await set_up_streams(server.url)
        async with Daemon(server.url, **durable()), Daemon(server.url, wait=False, **durable()) as second:
            await seen(await health_port(second), lambda view: bool(view["state"] == "standing by"))
