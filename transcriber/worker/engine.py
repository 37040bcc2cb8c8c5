"""What the worker needs from a speech engine, and the options that choose one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from transcriber.domain.timeline import UNGUIDED, Guidance

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from transcriber.domain.results import Segment
    from transcriber.worker.cancellation import Stop
    from transcriber.worker.context import Fit

ATTEMPTS = 3  # passes over a window: the fitted context, a wider one, and the wider one at a higher temperature
RETRY_TEMPERATURE = 0.4  # of the last attempt; OpenAI's fallback rises in steps of 0.2
NO_SPEECH = 0.6  # Whisper's no_speech_threshold
# As CTranslate2 names them: https://opennmt.net/CTranslate2/quantization.html
COMPUTE_TYPES = ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32")
BEAM_SIZE = 5  # as OpenAI evaluates Whisper; docs/real-models.md says what it costs and gains
WIDEST_BEAM = 10  # the cost grows with it
LARGEST_BATCH = 64  # windows in a pass on a GPU; L_max and the GPU's memory bound it long before
# This limit ends a pass that repeats itself. Fast speech has 5 words a second. English has 1.3 tokens a word, Russian
# and Japanese up to three times as many. Timestamps and punctuation are extra.
_TOKENS_A_SECOND = {"en": 8.0}
_TOKENS_A_SECOND_ELSEWHERE = 20.0
_EXTRA_TOKENS = 8


def most_tokens(seconds: float, language: str) -> int:
    """The most tokens that a pass may give for a window of so many seconds. More is a loop."""
    rate = _TOKENS_A_SECOND.get(language, _TOKENS_A_SECOND_ELSEWHERE)
    return round(_EXTRA_TOKENS + rate * seconds)


@dataclass(frozen=True, slots=True)
class Decoded:
    """The result of one pass: segments, with bounds in samples from the window's first sample, and the language.

    `endless`: the pass was ended because it gave more tokens than could be said in the window.
    """

    segments: tuple[Segment, ...]
    language: str
    endless: bool = False


class Speech(NamedTuple):
    """A window's samples, float32 mono 16 kHz, and what was asked for: its language, a prompt, a translation."""

    samples: NDArray[np.float32]
    language: str | None
    guidance: Guidance = UNGUIDED


class Engine(Protocol):
    """Turns windows' samples into text. Its calls block, and only one thread may make them."""

    @property
    def model(self) -> str:
        """The model's name as it appears in results."""
        ...

    @property
    def device(self) -> Device:
        """The hardware that it computes on, as far as it knows: never `AUTO`."""
        ...

    @property
    def multilingual(self) -> bool:
        """Whether it knows more languages than English. Else it does not translate, whatever is asked for."""
        ...

    @property
    def beams(self) -> bool:
        """Whether it has beam search, which costs more and makes fewer errors."""
        ...

    @property
    def workers(self) -> int:
        """How many windows of a pass it decodes at the same time. One takes as long alone as next to the others."""
        ...

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Numbers of windows to decode in a pass, the least first. Each is worth it only if a window costs less."""
        ...

    def transcribe(  # noqa: PLR0913 - all that a pass depends on
        self,
        samples: NDArray[np.float32],
        language: str | None,
        stop: Stop | None = None,
        *,
        attempt: int = 0,
        quick: bool = False,
        guidance: Guidance = UNGUIDED,
    ) -> Decoded:
        """Decode float32 mono 16 kHz in [-1, 1], at most 30 s. Raises `EngineError`.

        `attempt` counts the passes over this window from 0, below `ATTEMPTS`. Later passes cost more and fail less
        often. A later pass that detects no speech returns no segments. `quick`: without beam search.

        When `stop` is requested, the pass ends as soon as the engine can end it, and `Stopped` is raised.
        """
        ...

    def transcribe_many(
        self, speech: Sequence[Speech], stop: Stop | None = None, *, attempt: int = 0, quick: bool = False
    ) -> list[Decoded]:
        """The same for several windows in one pass, in their order. An error is that of all of them."""
        ...

    def work(self, samples: int, *, attempt: int = 0) -> float:
        """The work of a window of so many samples: its cost is proportional to this. In seconds of audio computed on.

        For a later attempt it is an upper bound, as if all of the work were the encoder's.
        """
        ...

    def close(self) -> None:
        """Free the model's memory. The engine must not be used afterwards."""
        ...


class EngineName(StrEnum):
    """The engines to choose from."""

    WHISPER_CPP = "whisper.cpp"  # its models are ggml files
    CTRANSLATE2 = "ctranslate2"  # its models are folders


class Device(StrEnum):
    """The hardware that an engine runs on."""

    AUTO = "auto"  # a GPU if there is one
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperOptions:
    """Which model to load, and how to decode with it.

    `audio_ctx`: how the encoder's context follows the window. A number is the least context of any window, in positions
    of 20 ms; None fits it to the model. `engine`: None takes the one that `path` is made for. `use_gpu` is for
    whisper.cpp alone. `device`, `compute_type`, `beam_size` and `batch_size` are for CTranslate2 alone. `compute_type`
    None means int8 on a CPU and float16 on a GPU. `batch_size` None means one window on a CPU, and on a GPU as many as
    pay.
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
    batch_size: int | None = None

    @property
    def chosen_engine(self) -> EngineName:
        """The engine from the settings, or else the one for the model's format: a folder is for CTranslate2."""
        if self.engine is not None:
            return self.engine
        return EngineName.CTRANSLATE2 if self.path.is_dir() else EngineName.WHISPER_CPP
