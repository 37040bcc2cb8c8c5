"""The real command, the real server and the real model turn recorded speech into text."""

from __future__ import annotations

from harness import Client, Daemon, Speech, check_account, s16


async def test_speech_published_in_chunks_comes_back_as_its_words(
    client: Client, daemon: Daemon, demo_speech: Speech
) -> None:
    """The main job: the demo recording, in 100 ms chunks, comes back word for word and fully accounted for."""
    pcm = s16(demo_speech.samples)
    for start in range(0, len(pcm), 9600):
        await client.send(pcm[start : start + 9600], audio_session="run", audio_offset=start // 2)
    await client.send(audio_session="run", audio_event="end")

    ended = await client.until_type("ended", session="run")
    assert client.text("s1") == demo_speech.words
    check_account(ended)
    assert ended["received"] == len(demo_speech.samples) / demo_speech.rate
    assert ended["gap"] == {}
    assert await daemon.stop() == 0
    assert daemon.stderr == ""
