"""NATS is away at the start, in mid-stream or for good; and NATS refuses us."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, STUB, Client, Daemon, NatsServer, Speech, check_tiles, s16
from radio import ENVIRON, SAMPLES, Radio

SECRET = "s3cret"


async def refused(url: str, *words: str, limit: float = 10, **environ: str) -> Daemon:
    """Expect the daemon to end with 3 and one critical line with these words. No line has the password."""
    begin = time.monotonic()
    async with Daemon(url, wait=False, **QUICK | environ) as daemon:
        assert await daemon.ended() == 3
    assert time.monotonic() - begin < limit
    last = daemon.records[-1]
    assert last["level"] == "critical"
    assert last["message"].startswith("cannot start: NATS at nats://127.0.0.1:")
    assert all(word in last["message"] for word in words), last["message"]
    assert SECRET not in str(daemon.records) + daemon.stderr
    assert daemon.stderr == ""
    return daemon


async def test_absent_server_is_given_up_after_the_deadline() -> None:
    """NATS_CONNECT_TIMEOUT_SECS bounds the attempts. The last line names address, setting and cause."""
    url = f"nats://bob:{SECRET}@127.0.0.1:1"
    words = ("127.0.0.1:1", "NATS_CONNECT_TIMEOUT_SECS=1", "Connect call failed")
    daemon = await refused(url, *words, NATS_CONNECT_TIMEOUT_SECS="1")
    assert [r for r in daemon.records if r["message"].startswith("NATS: ")]


async def test_silent_server_is_given_up_after_the_deadline(nats_server: NatsServer) -> None:
    """The same deadline holds for a connection on which the server says nothing."""
    nats_server.freeze()
    await refused(nats_server.url, "NATS_CONNECT_TIMEOUT_SECS=1", NATS_CONNECT_TIMEOUT_SECS="1")


@pytest.mark.parametrize(
    ("config", "environ"),
    [
        (f"authorization {{ user: bob, password: {SECRET}-right }}", {"NATS_USER": "bob", "NATS_PASSWORD": SECRET}),
        (f"authorization {{ user: bob, password: {SECRET}-right }}", {}),
        (f"authorization {{ token: {SECRET}-right }}", {"NATS_TOKEN": SECRET}),
        (f"authorization {{ users: [{{ user: bob, password: {SECRET}-right }}] }}", {"URL": f"bob:{SECRET}@"}),
    ],
)
async def test_a_wrong_password_or_token_ends_the_start_at_once(
    tmp_path: Path, config: str, environ: dict[str, str]
) -> None:
    """The reason is the server's own word. There is no second attempt, and no secret in the log."""
    user = environ.pop("URL", "")
    with NatsServer(tmp_path, config=config) as server:
        await refused(server.url.replace("//", f"//{user}"), "Authorization Violation", **environ)


@pytest.mark.parametrize(
    ("forbidden", "words"),
    [
        ('subscribe: {deny: "audio.>"}', ("permissions violation", "subscription", "audio.*")),
        ('subscribe: {deny: "transcribe.>"}', ("permissions violation", "subscription", "transcribe.*")),
    ],
)
async def test_forbidden_subscription_ends_the_start(tmp_path: Path, forbidden: str, words: tuple[str, ...]) -> None:
    """nats-py would keep a dead subscription. The daemon asks the server and names the subject."""
    config = f"authorization {{ users: [{{ user: bob, password: {SECRET}, permissions: {{ {forbidden} }} }}] }}"
    with NatsServer(tmp_path, config=config) as server:
        await refused(server.url, *words, NATS_USER="bob", NATS_PASSWORD=SECRET)


async def test_forbidden_publish_is_an_error_in_the_log(tmp_path: Path, heldout: Speech) -> None:
    """The server refuses only afterwards. The daemon works on, and each line names the subject."""
    deny = 'permissions: { publish: {deny: "transcript.*.final"} }'
    config = f"authorization {{ users: [{{user: bob, password: {SECRET}, {deny}}}, {{user: eve, password: x}}] }}"
    with NatsServer(tmp_path, config=config) as server:
        async with (
            Client(server.url.replace("//", "//eve:x@")) as client,
            Daemon(server.url.replace("//", f"//bob:{SECRET}@"), **ENVIRON) as daemon,
        ):
            await client.send(s16(heldout.cut(4, 5).samples), audio_event="end")
            await client.until_type("ended")
            denied = await daemon.logged("NATS: nats: permissions violation for publish")
            assert await daemon.stop() == 0
    assert (denied["level"], "transcript.s1.final" in denied["message"]) == ("error", True)
    assert not client.of("final")
    assert SECRET not in str(daemon.records)


async def survived(nats_server: NatsServer, client: Client, speech: Speech, seconds: float, pause: float) -> None:
    """Play speech, take the server away for so long in the middle of it, and check the account."""
    radio = Radio(client, speech)
    async with Daemon(nats_server.url, STATUS_INTERVAL_SECS="0.2", **ENVIRON) as daemon:
        playing = asyncio.create_task(radio.play(pause))
        await client.until_type("final")
        nats_server.kill()
        await asyncio.sleep(seconds)  # the time away is the point
        nats_server.start()
        await daemon.logged("NATS reconnected")
        head = await playing
        await client.send(audio_session="run", audio_event="end")
        ended = await client.until_type("ended")
        assert await daemon.stop() == 0
    check_tiles(client.heard, ended)
    assert round(ended["received"] * SAMPLES) == head
    assert ended["gap"].keys() == {"lost_upstream"}
    missing = sum(end - start for start, end in radio.lost)
    # Beside what the producer knows: chunks in flight when the server died, and until the daemon was back as well.
    assert missing <= round(ended["gap"]["lost_upstream"] * SAMPLES) <= missing + 2 * SAMPLES * 0.1 / pause
    assert len(client.of("ended")) == 1
    first, *_, last = client.of("final")
    assert (first["text"], last["text"]) == (speech.rows[0]["words"], speech.rows[-1]["words"])


async def test_session_goes_on_when_the_server_comes_back(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """A while without NATS leaves one session. The lost audio is gap(lost_upstream), sample for sample."""
    await survived(nats_server, client, heldout.cut(3, 8), seconds=1.5, pause=0.04)


@pytest.mark.slow
async def test_session_survives_ten_seconds_without_a_server(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """The stream runs in real time."""
    await survived(nats_server, client, heldout.cut(1, 10), seconds=10, pause=0.1)


async def decoded_while_away(
    nats_server: NatsServer, client: Client, speech: Speech, admission: str
) -> tuple[dict[str, Any], Daemon]:
    """Take NATS away while the engine works, for longer than that takes. Returns the account."""
    slow = ENVIRON | {"STUB_SECS": "0.5", "STUB_WARM_SECS": "0", "TRANSCRIPTION_MAX_LATENCY_SECS": admission}
    async with Daemon(nats_server.url, script=STUB, **slow) as daemon:
        await client.send(s16(speech.samples), audio_session="run", audio_event="end")
        await client.until_type("started")
        nats_server.kill()
        await asyncio.sleep(1)  # the time away is the point
        nats_server.start()
        ended = await client.until_type("ended")
        assert await daemon.stop() == 0
    check_tiles(client.heard, ended)
    return ended, daemon


async def test_results_made_while_nats_is_away_are_published_later(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """A result waits for NATS within the promised latency, and its own latency says so."""
    ended, _ = await decoded_while_away(nats_server, client, heldout.cut(4, 5), "20")
    assert ended["gap"] == {}
    (final,) = client.of("final")
    latency = final["latency"]
    assert 1 < latency["end_to_end"] <= 20
    assert latency["queue"] + latency["processing"] < 1


async def test_results_that_waited_too_long_become_gaps(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """After the promised latency nobody wants the text: it becomes gap(deadline), in the log as well."""
    ended, daemon = await decoded_while_away(nats_server, client, heldout.cut(4, 5), "0.9")
    assert ended["gap"].keys() == {"deadline"}
    assert not client.of("final")
    dropped = await daemon.logged("audio dropped")
    assert dropped["reason"] == "deadline"
    assert "finished after" in dropped["detail"]


@pytest.mark.parametrize("away", ["killed", pytest.param("frozen", marks=pytest.mark.slow)])
async def test_server_gone_for_good_ends_the_daemon_with_exit_code_4(
    nats_server: NatsServer, client: Client, heldout: Speech, away: str
) -> None:
    """It ends NATS_RECONNECT_TIMEOUT_SECS after the loss. The log has the reason and the unpublished results."""
    url = nats_server.url.replace("//", f"//bob:{SECRET}@")
    async with Daemon(url, NATS_RECONNECT_TIMEOUT_SECS="1", **ENVIRON) as daemon:
        await client.send(s16(heldout.cut(4, 5).samples), audio_session="run")
        await client.until_type("started")
        begin = time.monotonic()
        nats_server.kill() if away == "killed" else nats_server.freeze()
        assert await daemon.ended() == 4
        # A silent server is left after three unanswered pings, 5 s apart; then there are the second, and NATS's own.
        assert time.monotonic() - begin < (8 if away == "killed" else 30)
    (lost,) = [r for r in daemon.records if r["level"] == "critical"]
    assert re.search(r"NATS at nats://127\.0\.0\.1:\d+: lost.*NATS_RECONNECT_TIMEOUT_SECS=1", lost["message"])
    told = [r["body"] for r in daemon.records if "not published" in r["message"]]
    assert sum('"type":"ended"' in body for body in told) == 1
    assert daemon.stderr == ""
    assert SECRET not in str(daemon.records)
