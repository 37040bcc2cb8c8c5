"""The client of the package vosk, unchanged, through a real gateway, server and daemon."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import soxr
from harness import Speech, s16
from vosk.transcriber.transcriber import Transcriber


def transcriber(address: str) -> Any:
    """The transcriber without its constructor, which loads a model and starts ffmpeg; its server is a constant."""
    made = object.__new__(Transcriber)
    made.args = SimpleNamespace(server=address, output_type="txt")
    return made


def piped(speech: Speech) -> SimpleNamespace:
    """What the client reads: 16-bit PCM at 16 kHz on the standard output of a program."""
    stdout = asyncio.StreamReader()
    stdout.feed_data(s16(np.asarray(soxr.resample(speech.samples, speech.rate, 16_000, "HQ"), np.float32)))
    stdout.feed_eof()
    return SimpleNamespace(stdout=stdout)


async def test_vosk_transcriber_gets_every_word_in_order(sockets: str, demo_speech: Speech) -> None:
    """It sends and receives in lock step, faster than the engine works, and gets text, words and times."""
    client = transcriber(f"{sockets}/")
    results, sent = await client.recognize_stream_server(piped(demo_speech))
    assert sent == 2 * round(len(demo_speech.samples) / 3)
    assert " ".join(result["text"] for result in results if result["text"]) == demo_speech.words
    words = [word for result in results for word in result.get("result", ())]
    assert " ".join(word["word"] for word in words) == demo_speech.words
    starts = [word["start"] for word in words]
    assert starts == sorted(starts)
    lengths = (len(row["words"].split()) for row in demo_speech.rows)
    for row, first in zip(demo_speech.rows, itertools.accumulate(lengths, initial=0), strict=False):
        assert abs(starts[first] - row["start"]) < 0.5
    assert client.format_result(results).split() == demo_speech.words.split()
    assert not any("gaps" in result for result in results)


async def test_vosk_transcriber_may_connect_again(sockets: str, demo_speech: Speech) -> None:
    """A second connection is as good as the first, and so is one that sends nothing."""
    client = transcriber(f"{sockets}/")
    first, last = demo_speech.cut(0, 1), demo_speech.cut(7, 8)
    for speech in (first, last):
        results, _ = await client.recognize_stream_server(piped(speech))
        assert " ".join(result["text"] for result in results if result["text"]) == speech.words
    empty = Speech(first.samples[:0], first.rate, [])
    assert await client.recognize_stream_server(piped(empty)) == ([{"text": ""}], 0)
