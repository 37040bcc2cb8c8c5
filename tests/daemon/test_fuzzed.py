"""Producers that do anything, for a few seeds. Those on which tests/slow/test_fuzz_wire.py failed are among them."""

from __future__ import annotations

from fuzz import play
from harness import STUB, Client, Daemon, NatsServer

SEEDS = [*range(12)]


async def test_accounts_stay_right_whatever_a_few_producers_send(nats_server: NatsServer, client: Client) -> None:
    """No crash, no error in the log, and every session's account covers what it received."""
    async with Daemon(nats_server.url, script=STUB, STREAM_TIMEOUT_SECS="0.5") as daemon:
        for seed in SEEDS:
            told = await play(seed, client, daemon)
            assert told["started"] == told["ended"]
        assert await daemon.stop() == 0
        assert daemon.stderr == ""
