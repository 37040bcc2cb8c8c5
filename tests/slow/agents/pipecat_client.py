"""Run by a Python that has pipecat: `pipecat_client.py rest|deepgram|realtime ADDRESS WAV FINALS`.

Prints the transcriptions that the service gives a pipeline, one JSON object a line, until there are so many finals.
"""

from __future__ import annotations

import asyncio
import json
import sys
import wave

from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.deepgram.stt import DeepgramSTTService
from pipecat.services.openai.stt import OpenAIRealtimeSTTService, OpenAISTTService


class Printer(FrameProcessor):
    """Prints transcriptions, and says when there are enough."""

    def __init__(self, finals: int) -> None:
        super().__init__()
        self.enough = asyncio.Event()
        self._left = finals

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InterimTranscriptionFrame | TranscriptionFrame):
            final = isinstance(frame, TranscriptionFrame)
            kind = "final_transcript" if final else "interim_transcript"
            print(json.dumps({"type": kind, "text": frame.text}), flush=True)
            self._left -= final
            if not self._left:
                self.enough.set()
        await self.push_frame(frame, direction)


def made(kind: str, address: str) -> FrameProcessor:
    socket = address.replace("http", "ws", 1)
    if kind == "deepgram":
        return DeepgramSTTService(api_key="any", base_url=socket)
    if kind == "realtime":
        return OpenAIRealtimeSTTService(api_key="any", base_url=f"{socket}/v1/realtime")
    return OpenAISTTService(api_key="any", base_url=f"{address}/v1")


async def main(kind: str, address: str, path: str, finals: str) -> None:
    with wave.open(path) as file:
        rate, pcm = file.getframerate(), file.readframes(file.getnframes())
    printer = Printer(int(finals))
    params = PipelineParams(audio_in_sample_rate=rate)
    task = PipelineTask(Pipeline([made(kind, address), printer]), params=params)
    running = asyncio.create_task(PipelineRunner(handle_sigint=False).run(task))
    await asyncio.sleep(2)  # the services connect when the pipeline starts
    await task.queue_frame(VADUserStartedSpeakingFrame())
    for start in range(0, len(pcm), rate // 10 * 2):
        await task.queue_frame(InputAudioRawFrame(pcm[start : start + rate // 10 * 2], rate, 1))
        await asyncio.sleep(0.1)
    await task.queue_frame(VADUserStoppedSpeakingFrame())
    await asyncio.wait_for(printer.enough.wait(), 30)
    await task.queue_frame(EndFrame())
    await running


asyncio.run(main(*sys.argv[1:]))
