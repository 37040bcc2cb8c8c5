"""Durable mode with real processes: no audio that JetStream acknowledged is lost, and no result is written twice."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jiwer
import numpy as np
import pytest
from chaos import (
    connected,
    covered,
    durable,
    everything,
    publish,
    set_up_streams,
    transcript,
    until_ended,
)
from harness import PATIENCE, STUB, Client, Daemon, NatsServer, Speech
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig
from otlp import Collector
from scripted import take

from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import Sessions
from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.broker.setup import Storage, set_up
from transcriber.daemon.shutdown import ExitCode
from transcriber.domain.chunks import Cursor
from transcriber.domain.errors import BrokerError
from transcriber.domain.measurements import Tallies
from transcriber.domain.timeline import Origin, Window
from transcriber.pipeline.durable import DurablePipeline
from transcriber.pipeline.listeners import Listeners
from transcriber.pipeline.parts import Parts
from transcriber.worker.jobs import Job
from transcriber.worker.queue import JobQueue


async def test_stored_audio_is_transcribed_as_live_audio_is(server: NatsServer, heldout: Speech) -> None:
    """That includes audio stored before the daemon started."""
    speech = heldout.cut(0, 6)
    await set_up_streams(server.url)
    await publish(server.url, speech)
    async with Daemon(server.url, **durable()) as daemon:
        records = await until_ended(server.url)
        assert await daemon.stop() == ExitCode.CLEAN
    found = covered(records)
    assert (found.received, found.lost, found.doubled) == (everything(speech), 0, 0)
    assert jiwer.wer(speech.words, found.text) <= 0.1
    assert records[0]["type"] == "started"


async def test_daemon_stops_at_a_record_of_another_writer(server: NatsServer, heldout: Speech) -> None:
    """Whatever the lease says, the fence keeps two daemons from writing one transcript. The exit code is 5."""
    await set_up_streams(server.url)
    async with Daemon(server.url, **durable()) as daemon:
        await publish(server.url, heldout.cut(0, 1), end=False)
        await asyncio.sleep(1)
        async with connected(server.url) as client:
            last = await client.jetstream().get_last_msg("TRANSCRIPTS", "transcript.s1.*")
            await client.jetstream().publish("transcript.s1.event", last.data or b"")
        await publish(server.url, heldout.cut(1, 4), "s1")
        assert await daemon.ended() == ExitCode.FENCED
    assert any("transcript.s1.*" in record["message"] for record in daemon.records)


async def test_daemon_pulls_only_what_the_queue_has_room_for(server: NatsServer, heldout: Speech) -> None:
    """The rest stays in the store. `status`, the metrics and the consumer show how much that is."""
    speech = heldout.cut(0, 12)
    await set_up_streams(server.url)
    await publish(server.url, speech)
    slow = {
        "STUB_SECS": "0.4",
        "STUB_WARM_SECS": "0",
        "TRANSCRIPTION_QUEUE_CAPACITY": "1",
        "STATUS_INTERVAL_SECS": "0.2",
    }
    async with Client(server.url) as client, Collector() as collector:
        exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "200"}
        async with Daemon(server.url, script=STUB, **durable(**slow, **exporting)):
            behind = await client.until(lambda b: b["type"] == "status" and b["lag_chunks"] > 0)
            consumer = await client.nats.jetstream().consumer_info("AUDIO", "transcriber-=all")
            assert consumer.num_pending > 0
            assert behind["pending_jobs"] <= 1
            assert behind["lag_seconds"] > 0
            lag = ("transcriber.lag.chunks", "transcriber.lag.seconds")
            await collector.until(lambda c: all(c.value(name) > 0 for name in lag))
            found = covered(await until_ended(server.url))
            await collector.until(lambda c: c.value("transcriber.lag.chunks") == 0)
    assert (found.received, found.lost, found.doubled) == (everything(speech), 0, 0)
    assert "gap" not in {body["type"] for body in await transcript(server.url)}


async def test_a_request_pushes_no_stored_window_out() -> None:
    """In a full queue a request's window takes the place of a stored one, which waits for another place."""
    queue = JobQueue(2)
    span = SimpleNamespace(ids={}, traceparent=None, end=lambda *_, **__: None)  # stand-ins: no telemetry, no server
    parts = Parts(
        sessions=Sessions(SessionOptions(), lambda: "new", Tallies()),
        queue=queue,
        publisher=SimpleNamespace(connected=False),
        observer=SimpleNamespace(start=lambda _: span),
        listeners=Listeners(),
        tallies=Tallies(),
        max_latency=20.0,
        max_payload=lambda: 2**20,
        speed=lambda: None,
    )
    pipeline = DurablePipeline(parts, SimpleNamespace(), {})

    def window(stream: str, sequence: int) -> Window:
        return Window(
            origin=Origin(stream, "x"),
            sequence=sequence,
            start=0,
            end=16_000,
            samples=np.zeros(16_000, np.float32),
            cursor=Cursor(1, 0),
        )

    first, second = window("s1", 0), window("s1", 1)
    pipeline._take([first, second])
    assert ([take(queue)], queue.depth) == (queue._running, 2)
    assert queue.try_put(Job(window=window("request", 0), deliver=lambda _: None))
    assert list(pipeline._backlog) == [second]
    assert parts.tallies.jobs_dropped.grand_total() == 0


async def test_audio_older_than_durable_max_lag_is_skipped(server: NatsServer, heldout: Speech) -> None:
    """Old audio becomes a gap with its bounds. The words that came in time are transcribed."""
    await set_up_streams(server.url)
    old, new = heldout.cut(0, 3), heldout.cut(3, 6)
    await publish(server.url, old, "old")
    await asyncio.sleep(3)
    async with Daemon(server.url, **durable(DURABLE_MAX_LAG_SECS="2")):
        skipped = await until_ended(server.url, "old")
        await publish(server.url, new, "new")
        heard = covered(await until_ended(server.url, "new"))
    assert skipped[-1]["gap"] == {"lag": pytest.approx(len(old.samples) / old.rate, abs=1e-4)}
    assert jiwer.wer(new.words, heard.text) <= 0.1


async def test_sessions_time_out_by_the_messages_own_time(server: NatsServer, heldout: Speech) -> None:
    """A daemon that comes later reads faster than real time. Two seconds of silence between messages still are two."""
    before, after = heldout.cut(0, 2), heldout.cut(2, 4)
    await set_up_streams(server.url)
    await publish(server.url, before, session=None, end=False)
    await asyncio.sleep(2)
    await publish(server.url, after, session=None)
    async with Daemon(server.url, **durable(SESSION_TIMEOUT_SECS="1.5")):
        records = await until_ended(server.url)
    first, second = (body for body in records if body["type"] == "ended")
    assert first["session"] != second["session"]
    assert [round(body["received"] * 16_000) for body in (first, second)] == [everything(before), everything(after)]


async def test_time_without_a_daemon_ends_no_session(server: NatsServer, heldout: Speech) -> None:
    """Chunks stored one after the other belong together, however late the second half is read."""
    speech = heldout.cut(0, 4)
    await set_up_streams(server.url)
    settings = durable(SESSION_TIMEOUT_SECS="1.5")
    publishing = asyncio.create_task(publish(server.url, speech, session=None, pace=0.02))
    async with Daemon(server.url, **settings) as daemon:
        daemon.process.kill()
    await publishing
    await asyncio.sleep(2)
    async with Daemon(server.url, **settings):
        found = covered(await until_ended(server.url))
    assert (found.received, found.lost, found.doubled) == (everything(speech), 0, 0)


async def test_window_on_which_the_engine_fails_becomes_a_gap(server: NatsServer, heldout: Speech) -> None:
    """No other drop is left in durable mode: the cause is the window itself."""
    await set_up_streams(server.url)
    await publish(server.url, heldout.cut(0, 6))
    async with Daemon(server.url, script=STUB, **durable(STUB_FAIL_EVERY="3", PARTIAL_INTERVAL_SECS="0")):
        records = await until_ended(server.url)
    assert {body["reason"] for body in records if body["type"] == "gap"} == {"engine_error"}
    assert covered(records).lost == 0


async def test_setup_refuses_a_stream_with_other_settings(server: NatsServer) -> None:
    """The error says what differs. With the settings that are there, setup changes nothing."""
    await set_up_streams(server.url)
    connection = Connection(BrokerOptions(url=server.url))
    await connection.open()
    assert all("is there" in line for line in await set_up(connection, Storage()))
    with pytest.raises(BrokerError, match="AUDIO exists with other settings: max_age is 86400, not 60"):
        await set_up(connection, Storage(audio_age=60))
    await connection.close()


async def test_setup_refuses_a_consumer_with_other_settings(server: NatsServer) -> None:
    """Somebody else has taken one of our names. The daemon's own consumer is accepted."""
    await set_up_streams(server.url)
    connection = Connection(BrokerOptions(url=server.url))
    await connection.open()
    async with Daemon(server.url, **durable(AUDIO_SUBJECT="audio.s1")) as daemon:
        async with asyncio.timeout(PATIENCE):  # the daemon makes it after "ready"
            while "transcriber-s1: is there" not in await set_up(connection, Storage()):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.05)
        assert await daemon.stop() == ExitCode.CLEAN
    jetstream = connection.client.jetstream()
    await jetstream.add_consumer("AUDIO", ConsumerConfig(durable_name="other", ack_policy=AckPolicy.EXPLICIT))
    assert "other: is there" not in await set_up(connection, Storage())
    foreign = ConsumerConfig(durable_name="transcriber-s2", ack_policy=AckPolicy.EXPLICIT, filter_subject="audio.s1")
    await jetstream.add_consumer("AUDIO", foreign)
    with pytest.raises(
        BrokerError, match=r"transcriber-s2 exists with other settings: ack_policy is explicit, not none; "
    ):
        await set_up(connection, Storage())
    await connection.close()


async def test_missing_streams_end_the_start_and_name_the_command(server: NatsServer) -> None:
    async with Daemon(server.url, wait=False, **durable()) as daemon:
        assert await daemon.ended() == ExitCode.CANNOT_START
    assert "transcriber setup" in daemon.records[-1]["message"]


async def test_replay_transcribes_stored_audio_to_another_subject(server: NatsServer, heldout: Speech) -> None:
    """`replay` prints and publishes the results. The transcript stays as it is."""
    speech = heldout.cut(0, 4)
    await set_up_streams(server.url)
    await publish(server.url, speech)
    environ = os.environ | {"NATS_URL": server.url, "WHISPER_THREADS": "1"}
    command = [sys.executable, "-m", "transcriber", "replay", "s1", "--format", "json"]
    async with connected(server.url) as client:
        heard: list[Msg] = []
        await client.subscribe("replay.>", cb=functools.partial(_append, heard))
        await client.flush()
        whole = await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True, check=True)
        later = [*command, "--from", "2999-01-01"]
        nothing = await asyncio.to_thread(
            subprocess.run, later, env=environ, capture_output=True, check=True, timeout=20
        )
        await client.flush()
    printed = [json.loads(line) for line in whole.stdout.splitlines()]
    assert jiwer.wer(speech.words, " ".join(b["text"] for b in printed if b["type"] == "final")) <= 0.1
    assert printed[-1]["type"] == "ended"
    assert [json.loads(message.data) for message in heard] == printed
    assert {message.subject for message in heard} == {"replay.s1.final", "replay.s1.event"}
    assert not nothing.stdout
    assert nothing.stderr == b"transcriber: nothing is stored for audio.s1 at that time\n"
    assert await transcript(server.url) == []


async def test_replay_gives_the_same_results_as_durable_mode(server: NatsServer, heldout: Speech) -> None:
    """The same audio both ways: sessions that time out, windows that need a second pass, a chunk that is bad.

    Only names and speed differ; silence is stored for its checkpoint alone.
    """
    hurried = Speech(heldout.cut(2, 5).samples[::2].copy(), heldout.rate, [])
    await set_up_streams(server.url)
    await publish(server.url, heldout.cut(0, 2), session=None, end=False)
    await asyncio.sleep(2)
    await publish(server.url, hurried, session=None, end=False)
    async with connected(server.url) as client:
        await client.jetstream().publish("audio.s1", b"odd", headers={"Audio-Sample-Rate": str(heldout.rate)})
    await asyncio.sleep(2)
    await publish(server.url, heldout.cut(5, 7))
    async with Daemon(server.url, **durable(SESSION_TIMEOUT_SECS="1.5")), asyncio.timeout(PATIENCE):
        while [body["type"] for body in await transcript(server.url)].count("ended") < 3:  # noqa: ASYNC110 - of a server
            await asyncio.sleep(0.1)
    told = [body for body in await transcript(server.url) if body["type"] != "silence"]
    environ = os.environ | {"NATS_URL": server.url, "WHISPER_THREADS": "1", "SESSION_TIMEOUT_SECS": "1.5"}
    command = [sys.executable, "-m", "transcriber", "replay", "s1", "--format", "json"]
    again = await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True, check=True)
    replayed = [json.loads(line) for line in again.stdout.splitlines()]
    assert {body["type"] for body in told} == {"started", "final", "rejected", "ended"}
    assert len(replayed) == len(told)
    for one, other in zip(replayed, told, strict=True):
        compared = one.keys() - {"session", "latency", "rtf"}  # a stored record has its checkpoint too
        assert {key: one[key] for key in compared} == {key: other[key] for key in compared}


async def _append(heard: list[Msg], message: Msg) -> None:
    heard.append(message)


async def test_a_server_without_jetstream_is_named_as_such(nats_server: NatsServer) -> None:
    """By `setup`, and by the daemon after NATS_CONNECT_TIMEOUT_SECS, in which a cluster may have come up."""
    async with Daemon(nats_server.url, wait=False, **durable(NATS_CONNECT_TIMEOUT_SECS="1")) as daemon:
        assert await daemon.ended() == ExitCode.CANNOT_START
    assert "nats-server -js" in daemon.records[-1]["message"]
    with pytest.raises(BrokerError, match="nats-server -js"):
        await set_up_streams(nats_server.url)
