"""What the worker asks of a speech engine, and how one is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from transcriber.domain.results import Segment
    from transcriber.worker.cancellation import Stop
    from transcriber.worker.context import Fit

ATTEMPTS = 3  # passes over one window at most: the fitted context, a wider one, and that at a higher temperature
RETRY_TEMPERATURE = 0.4  # of the last attempt: OpenAI's fallback goes up in steps of 0.2
NO_SPEECH = 0.6  # Whisper's no_speech_threshold
# CTranslate2's names of them: https://opennmt.net/CTranslate2/quantization.html
COMPUTE_TYPES = ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32")
BEAM_SIZE = 5  # as OpenAI measures Whisper; docs/real-models.md has what it costs and gains
WIDEST_BEAM = 10  # the cost grows with it
# What ends a pass that repeats itself. Fast speech has 5 words a second; English has 1.3 tokens a word, Russian and
# Japanese up to three times as many. Timestamps and punctuation come on top.
_TOKENS_A_SECOND = {"en": 8.0}
_TOKENS_A_SECOND_ELSEWHERE = 20.0
_TOKENS_BESIDE = 8


def most_tokens(seconds: float, language: str) -> int:
    """The tokens that a pass may say over a window of so many seconds; more is a loop."""
    rate = _TOKENS_A_SECOND.get(language, _TOKENS_A_SECOND_ELSEWHERE)
    return round(_TOKENS_BESIDE + rate * seconds)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one pass returned: segments with bounds in samples from the window's first, and the language.

    `endless`: the pass said more than there was time for, and was ended.
    """

    segments: tuple[Segment, ...]
    language: str
    endless: bool = False


class Engine(Protocol):
    """Turns a window's samples into text. Used by one thread only; its calls block."""

    @property
    def model(self) -> str:
        """The model's name as it appears in results."""
        ...

    def transcribe(
        self,
        samples: NDArray[np.float32],
        language: str | None,
        stop: Stop | None = None,
        *,
        attempt: int = 0,
    ) -> Decoded:
        """Decode float32 mono 16 kHz in [-1, 1], at most 30 s. Raises `EngineError`.

        `attempt` counts the passes over this window, up to `ATTEMPTS`: later ones cost more and fail less often. What
        a later one takes for no speech has no segments.

        When `stop` is asked for, the pass ends after its next token, and `Stopped` is raised.
        """
        ...

    def work(self, samples: int, *, attempt: int = 0) -> float:
        """What the cost of a window of so many samples is proportional to, in seconds of audio that are computed on.

        Of a later attempt: at most, as if all of it were the encoder's.
        """
        ...

    def close(self) -> None:
        """Free the model's memory; nothing may be asked of the engine afterwards."""
        ...


class EngineName(StrEnum):
    """The engines that there are."""

    WHISPER_CPP = "whisper.cpp"  # its models are ggml files
    CTRANSLATE2 = "ctranslate2"  # its models are folders


class Device(StrEnum):
    """What CTranslate2 computes on."""

    AUTO = "auto"  # a GPU where there is one
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperOptions:
    """Which model to load, and how an engine is asked.

    `audio_ctx`: how the encoder's context follows the window; a number is the least that a window is given, in
    positions of 20 ms; None: as the model needs it. `engine`: None for the one that `path` is made for. `use_gpu` is
    for whisper.cpp alone, what follows it for CTranslate2; `compute_type` None: int8 on a CPU, float16 on a GPU.
    """

    path: Path
    threads: int
    language: str = "en"
    prompt: str = ""
    audio_ctx: int | Fit | None = None
    engine: EngineName | None = None
    use_gpu: bool = False
    device: Device = Device.AUTO
    compute_type: str | None = None
    beam_size: int = BEAM_SIZE

    @property
    def chosen_engine(self) -> EngineName:
        """The engine that was asked for, or the one whose format the model has: a folder is CTranslate2's."""
        if self.engine is not None:
            return self.engine
        return EngineName.CTRANSLATE2 if self.path.is_dir() else EngineName.WHISPER_CPP
