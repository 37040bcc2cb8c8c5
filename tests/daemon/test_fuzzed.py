"""Producers that do anything, for a few seeds. Those on which tests/slow/test_fuzz_wire.py failed are among them."""

from __future__ import annotations

from chaos import durable, set_up_streams
from fuzz import Restarting, check_daemon, play, play_stored
from harness import STUB, Client, Daemon, NatsServer

SEEDS = [*range(12)]
STORED = [5000, 5002]  # a session that was over before an earlier one, and one whose id came back after a restart


async def test_accounts_stay_right_whatever_a_few_producers_send(nats_server: NatsServer, client: Client) -> None:
    """No crash, no error in the log, and every session's account covers what it received."""
    async with Daemon(nats_server.url, script=STUB, STREAM_TIMEOUT_SECS="0.5") as daemon:
        for seed in SEEDS:
            told = await play(seed, client, daemon)
            assert told["started"] == told["ended"]
        assert await daemon.stop() == 0
        assert daemon.stderr == ""


async def test_stored_accounts_stay_right_after_kills(server: NatsServer) -> None:
    """In durable mode, with daemons that are killed at any moment."""
    await set_up_streams(server.url)
    settings = durable(STREAM_TIMEOUT_SECS="0.5")
    async with Client(server.url) as client, Restarting(server.url, settings) as daemons:
        for seed in STORED:
            await play_stored(seed, client, daemons.restart)
            check_daemon(daemons.current)
        assert await daemons.current.stop() == 0
