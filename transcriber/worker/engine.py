"""The speech engine: what the worker asks of one, and whisper.cpp through pywhispercpp."""

from __future__ import annotations

import atexit
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import _pywhispercpp as whisper
import numpy as np

from transcriber.domain.errors import EngineError, Stopped
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.models.ggml import check_model_file
from transcriber.worker import memory
from transcriber.worker.abort import stoppable
from transcriber.worker.context import FLASH_STEP, POSITION, Fit, fit_for, fitted, wider
from transcriber.worker.tokens import read_tokens, segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transcriber.domain.results import Segment
    from transcriber.worker.cancellation import Stop

log = logging.getLogger(__name__)

_SHORTEST = SAMPLE_RATE  # samples; under 0.1 s whisper.cpp decodes nothing, and under 1 s it warns
# What ends a pass that repeats itself. Fast speech has 5 words a second; English has 1.3 tokens a word, Russian and
# Japanese up to three times as many. Beside them come two timestamps and punctuation.
_TOKENS_A_SECOND = {"en": 8.0}
_TOKENS_A_SECOND_ELSEWHERE = 20.0
_TOKENS_BESIDE = 8
ATTEMPTS = 3  # passes over one window at most: the fitted context, a wider one, and that at a higher temperature
_TEMPERATURE = 0.4  # of the last attempt: OpenAI's fallback goes up in steps of 0.2
_NO_SPEECH = 0.6  # Whisper's no_speech_threshold
_NEVER = 2.0  # a probability that none exceeds


_ERROR = 4  # ggml's level of what went wrong
_LOADING = ("whisper_init", "whisper_model_load")  # what such a line starts with when a model could not be loaded
_complaints: list[str] = []  # such lines, while an engine is made


def _log(level: object, text: str, *_: object) -> None:
    """Take what whisper.cpp would print to standard error."""
    if text.strip(" .\n"):
        log.debug("%s", text.strip())
    if level == _ERROR and text.startswith(_LOADING):
        _complaints.append(text.strip())


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


@dataclass(frozen=True, slots=True, kw_only=True)
class WhisperOptions:
    """How whisper.cpp is loaded and asked.

    `audio_ctx`: how the encoder's context follows the window; a number is the least that a window is given, in
    positions of 20 ms; None: as the model needs it.
    """

    path: Path
    threads: int
    language: str = "en"
    prompt: str = ""
    audio_ctx: int | Fit | None = None
    use_gpu: bool = False


class WhisperEngine:
    """One whisper.cpp context, greedy decoding without fallback, every parameter set on every call.

    The file at `options.path` must have been verified: whisper.cpp does not survive a damaged one.
    """

    def __init__(self, options: WhisperOptions) -> None:
        self._options = options
        asked = options.audio_ctx
        self._least = asked if isinstance(asked, int) else 0
        if isinstance(asked, int):
            asked = Fit.ROOMY if asked % FLASH_STEP == 0 else Fit.TIGHT
        self._fit = asked or fit_for(check_model_file(options.path))
        self.flash = self._fit is not Fit.TIGHT or (options.use_gpu and not self._least)
        parameters = whisper.whisper_context_default_params()
        parameters.use_gpu = options.use_gpu
        parameters.flash_attn = self.flash
        whisper.whisper_log_set(_log)
        # The bindings let go of the callback after the interpreter is gone, which aborts the process.
        atexit.register(whisper.whisper_log_set, None)
        _complaints.clear()
        self._context = whisper.whisper_init_from_file_with_params(str(options.path), parameters)
        if _complaints:  # the bindings return a context all the same, and every call on it would crash
            raise EngineError(f"whisper.cpp cannot load {options.path}: {_complaints[0]}")
        self._languages = {"en"}
        # On an English-only model "auto" detects nonsense, and that answer would stick to later calls.
        if whisper.whisper_is_multilingual(self._context):
            known = range(whisper.whisper_lang_max_id() + 1)
            self._languages = {"auto", *(whisper.whisper_lang_str(i) for i in known)}

    @property
    def model(self) -> str:
        return self._options.path.stem

    def transcribe(
        self,
        samples: NDArray[np.float32],
        language: str | None,
        stop: Stop | None = None,
        *,
        attempt: int = 0,
    ) -> Decoded:
        length = len(samples)
        if length < _SHORTEST:
            samples = np.concatenate([samples, np.zeros(_SHORTEST - length, np.float32)])
        samples = np.ascontiguousarray(samples, np.float32)
        parameters = self._parameters(length, language, attempt)
        if parameters.language == "auto":
            self._prime(samples, parameters.audio_ctx)
        with stoppable(parameters, stop):
            status = whisper.whisper_full(self._context, parameters, samples, len(samples))
        if status:
            if stop is not None and stop():
                raise Stopped("stopped in the middle of the window")
            raise EngineError(f"whisper_full returned {status}")
        tokens = read_tokens(self._context)
        spoken = whisper.whisper_lang_str(whisper.whisper_full_lang_id(self._context))
        return Decoded(segments(tokens, length), spoken, endless=len(tokens) > parameters.max_tokens)

    def close(self) -> None:
        """Free the model: the bindings do not when the object goes."""
        whisper.whisper_free(self._context)
        del self._context
        memory.give_back()

    def work(self, samples: int, *, attempt: int = 0) -> float:
        """The context goes through the encoder, the window itself through the decoder, at much the same cost.

        Measured on the bundled model: 99 to 111 us per position of the two together in windows of 1 to 30 s, while the
        cost per second of window goes from 56 to 11 ms.
        """
        positions = self._positions(samples)
        work = (positions * POSITION + samples) / SAMPLE_RATE
        return work * self._positions(samples, attempt) / positions

    def _positions(self, samples: int, attempt: int = 0) -> int:
        """Encoder positions that a window is given."""
        first = fitted(samples, self._fit, flash=self.flash)
        first = max(first, self._least)
        return first if not attempt else wider(first)

    def _prime(self, samples: NDArray[np.float32], positions: int) -> None:
        """Let the language be detected at this context: whisper.cpp would take that of the pass before."""
        parameters = whisper.whisper_full_default_params(whisper.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        parameters.n_threads, parameters.audio_ctx = self._options.threads, positions
        parameters.print_progress = False
        whisper.assign_encoder_begin_callback(parameters, lambda _context: False)
        try:
            whisper.whisper_full(self._context, parameters, samples, len(samples))
        finally:
            whisper.clear_encoder_begin_callback(parameters)

    def _parameters(self, length: int, language: str | None, attempt: int) -> Any:  # noqa: ANN401 - the bindings have no types
        """Fresh parameters for one call: nothing carries over from the last."""
        options, positions = self._options, self._positions(length, attempt)
        p = whisper.whisper_full_default_params(whisper.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        p.n_threads = options.threads
        wanted = (language, options.language, "en")
        p.language = next(code for code in wanted if code in self._languages)
        p.initial_prompt = options.prompt
        p.no_context = True  # text carried over from window to window feeds loops
        last = attempt == ATTEMPTS - 1 or (attempt and positions == self._positions(length))
        p.temperature = _TEMPERATURE if last else 0.0
        p.temperature_inc = 0.0  # the default fallback, 6 temperatures of 5 candidates each, is a latency cliff
        p.greedy = {"best_of": 1}
        p.token_timestamps = True
        p.suppress_blank = True
        p.print_progress = p.print_realtime = p.print_timestamps = p.print_special = False
        p.audio_ctx = positions
        p.single_segment = True  # one pass of the encoder a window: else each early timestamp begins another
        rate = _TOKENS_A_SECOND.get(p.language, _TOKENS_A_SECOND_ELSEWHERE)
        p.max_tokens = round(_TOKENS_BESIDE + rate * length / SAMPLE_RATE)
        # whisper.cpp leaves text out when both thresholds say so. The first pass keeps all, so that none of it vanishes
        # unseen; a later one is for text in doubt already, where Whisper's own no-speech probability decides.
        p.logprob_thold, p.no_speech_thold = 0.0, _NO_SPEECH if attempt else _NEVER
        return p
