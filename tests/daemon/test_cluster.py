"""Durable mode on three servers that replicate: whichever of them dies, freezes or is cut off, nothing is lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from chaos import covered, durable, everything, publish, set_up_streams, until_ended
from cluster import Cluster
from harness import Daemon, Speech

from transcriber.broker.setup import Storage
from transcriber.daemon.shutdown import ExitCode


@pytest.mark.slow  # two minutes on a busy machine; tests/slow/test_cluster_chaos.py has ten of each
async def test_leaders_that_die_freeze_or_are_cut_off_cost_nothing(tmp_path: Path, heldout: Speech) -> None:
    """One fault of each kind while two streams speak; what is said about it names what did not answer."""
    speech = heldout.cut(0, 12)
    async with Cluster(tmp_path) as cluster:
        await set_up_streams(cluster.url, Storage(replicas=3))
        async with Daemon(cluster.url, **durable()) as daemon:
            publishing = [asyncio.create_task(publish(cluster.url, speech, name, pace=0.05)) for name in ("s1", "s2")]
            await cluster.kill_leader("AUDIO")
            await cluster.freeze_leader("TRANSCRIPTS")
            await cluster.cut_leader("KV_TRANSCRIBER_LEASES")
            await asyncio.gather(*publishing)
            for name in ("s1", "s2"):
                found = covered(await until_ended(cluster.url, name))
                assert (found.received, found.lost, found.doubled, found.gaps) == (everything(speech), 0, 0, 0)
            assert await daemon.stop() == ExitCode.CLEAN
    assert any(record["message"].endswith("trying again") for record in daemon.records)


@pytest.mark.slow
async def test_a_start_without_a_quorum_waits_for_it(tmp_path: Path, heldout: Speech) -> None:
    """Two servers of three are away: neither exit 3 nor exit 1, and work when they are back."""
    speech = heldout.cut(0, 2)
    async with Cluster(tmp_path) as cluster:
        await set_up_streams(cluster.url, Storage(replicas=3))
        await publish(cluster.url, speech)
        for one in (1, 2):
            cluster.servers[one].kill()
        async with Daemon(cluster.url, wait=False, **durable()) as daemon:
            await daemon.logged("the lease: ")
            for one in (1, 2):
                await asyncio.to_thread(cluster.servers[one].start)
            found = covered(await until_ended(cluster.url))
            assert await daemon.stop() == ExitCode.CLEAN
    assert (found.received, found.lost, found.doubled, found.gaps) == (everything(speech), 0, 0, 0)


@pytest.mark.slow
async def test_a_start_without_its_transcripts_waits_for_them(tmp_path: Path, heldout: Speech) -> None:
    """The lease can be had, and the only server that has the transcripts is frozen: no exit 3 before the deadline."""
    speech = heldout.cut(0, 2)
    async with Cluster(tmp_path) as cluster:
        await set_up_streams(cluster.url, Storage(replicas=3))
        await publish(cluster.url, speech)
        async with cluster.client() as client:
            jetstream = client.jetstream()
            config = (await jetstream.stream_info("TRANSCRIPTS")).config
            await jetstream.delete_stream("TRANSCRIPTS")
            await jetstream.add_stream(replace(config, num_replicas=1))
        one = await cluster.leader("TRANSCRIPTS")
        cluster.servers[one].freeze()
        async with Daemon(cluster.url, wait=False, **durable()) as daemon:
            await daemon.logged("the transcripts: ")
            cluster.servers[one].resume()
            found = covered(await until_ended(cluster.url))
            assert await daemon.stop() == ExitCode.CLEAN
    assert (found.received, found.lost, found.doubled, found.gaps) == (everything(speech), 0, 0, 0)
