"""Run by a Python that has LiveKit's plugins: `livekit_client.py rest|deepgram|realtime ADDRESS WAV FINALS`.

Prints what the plugin tells an agent, one JSON object a line. With `realtime` it stops after so many finals, because
then the plugin waits for the server to hang up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import wave

import aiohttp
from livekit import rtc
from livekit.agents import stt
from livekit.plugins import deepgram, openai


def made(kind: str, address: str, session: aiohttp.ClientSession) -> stt.STT:
    if kind == "deepgram":
        return deepgram.STT(base_url=f"{address}/v1/listen", api_key="any", http_session=session)
    recognizer = openai.STT(base_url=f"{address}/v1", api_key="any", use_realtime=kind == "realtime")
    recognizer._session = session  # an agent's job would give it one
    return recognizer


async def main(kind: str, address: str, path: str, finals: str) -> None:
    with wave.open(path) as file:
        rate, pcm = file.getframerate(), file.readframes(file.getnframes())
    async with aiohttp.ClientSession() as session:
        recognizer = made(kind, address, session)
        if kind == "rest":
            tell(await recognizer.recognize(rtc.AudioFrame(pcm, rate, 1, len(pcm) // 2)))
            return
        stream = recognizer.stream()
        sending = asyncio.create_task(send(stream, pcm, rate))
        left = int(finals)
        async for event in stream:
            tell(event)
            left -= event.type == stt.SpeechEventType.FINAL_TRANSCRIPT
            if kind == "realtime" and not left:
                break
        await sending
        await stream.aclose()


async def send(stream: stt.SpeechStream, pcm: bytes, rate: int) -> None:
    """In real time, as a microphone does."""
    step = rate // 10 * 2
    for start in range(0, len(pcm), step):
        piece = pcm[start : start + step]
        stream.push_frame(rtc.AudioFrame(piece, rate, 1, len(piece) // 2))
        await asyncio.sleep(0.1)
    stream.end_input()


def tell(event: stt.SpeechEvent) -> None:
    text = event.alternatives[0].text if event.alternatives else ""
    print(json.dumps({"type": str(event.type.value), "text": text}), flush=True)


asyncio.run(main(*sys.argv[1:]))
