"""An hour of producers that do anything: no crash, and every session's account is right."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest
from chaos import durable, set_up_streams
from fuzz import Restarting, check_daemon, play, play_stored
from harness import STUB, Client, Daemon, NatsServer

SECONDS = float(os.environ.get("FUZZ_SECS", "3600"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))  # the first of them: the seconds since 1970 give one nobody had before
ENVIRON = {"STREAM_TIMEOUT_SECS": "0.5", "MAX_STREAMS": "10000"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 300)]


async def test_accounts_stay_right_whatever_producers_send_for_an_hour(nats_server: NatsServer, client: Client) -> None:
    """One daemon gets one seed after the other. A failure names its seed."""
    seed, until, told = SEED, time.monotonic() + SECONDS, Counter[str]()
    async with Daemon(nats_server.url, script=STUB, **ENVIRON) as daemon:
        while time.monotonic() < until:
            try:
                told.update(await play(seed, client, daemon))
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"seed {seed}: {error}") from error
            seed += 1
        assert await daemon.stop() == 0
        assert daemon.stderr == ""
    print(f"\n{seed - SEED} seeds from {SEED}: {dict(told)}")


async def test_stored_accounts_stay_right_though_the_daemon_dies(server: NatsServer) -> None:
    """In durable mode, with a daemon that is killed in the middle of two seeds of three."""
    await set_up_streams(server.url)
    seed, until, told = SEED, time.monotonic() + SECONDS, Counter[str]()
    async with Client(server.url) as client, Restarting(server.url, durable(**ENVIRON)) as daemons:
        while time.monotonic() < until:
            try:
                told.update(await play_stored(seed, client, daemons.restart))
                check_daemon(daemons.current)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"seed {seed}: {error!r}") from error
            seed += 1
        assert await daemons.current.stop() == 0
    print(f"\n{seed - SEED} seeds from {SEED}: {dict(told)}")
