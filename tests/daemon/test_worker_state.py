"""What a daemon says of itself in its service's statistics."""

from __future__ import annotations

import json
from typing import Any

from harness import Client, Daemon, Speech, s16


async def state(client: Client) -> dict[str, Any]:
    answer = await client.nats.request("$SRV.STATS.transcriber", timeout=5)
    (endpoint,) = json.loads(answer.data)["endpoints"]
    data: dict[str, Any] = endpoint["data"]
    return data


async def test_state_tells_how_busy_the_daemon_is(client: Client, daemon: Daemon, demo_speech: Speech) -> None:
    """Before anything, while a session is open, and after the engine has run."""
    idle = await state(client)
    assert idle["model"] == "ggml-dispatch-mini"
    assert (idle["depth"], idle["streams"], idle["max_streams"], idle["max_latency"]) == (0, 0, 1000, 20.0)
    assert idle["capacity"] >= 1
    assert idle["rtf"] > 0
    assert idle["memory"] > 10**7
    assert "gpu_memory" not in idle  # the bundled engine computes on the CPU
    await client.send(s16(demo_speech.cut(0, 1).samples))
    await client.until_type("started")
    assert (await state(client))["streams"] == 1
    await client.send(audio_event="end")
    await client.until_type("ended")
    after = await state(client)
    assert (after["streams"], after["depth"]) == (0, 0)
    assert after["busy"] > idle["busy"]
    assert after["cpu"] > idle["cpu"]
