"""whisper.cpp, through pywhispercpp's C bindings."""

from __future__ import annotations

import atexit
import logging
from typing import TYPE_CHECKING, Any

import _pywhispercpp as whisper
import numpy as np

from transcriber.domain.errors import EngineError, Stopped
from transcriber.domain.timeline import SAMPLE_RATE, UNGUIDED, Guidance
from transcriber.models.ggml import check_model_file
from transcriber.worker import memory
from transcriber.worker.context import FLASH_STEP, POSITION, Fit, fit_for, fitted, wider
from transcriber.worker.engine import ATTEMPTS, NO_SPEECH, RETRY_TEMPERATURE, Decoded, Device, most_tokens
from transcriber.worker.engines.abort import stoppable
from transcriber.worker.tokens import Token, segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from transcriber.worker.cancellation import Stop
    from transcriber.worker.engine import Speech, WhisperOptions

log = logging.getLogger(__name__)

_SHORTEST = SAMPLE_RATE  # samples, 1 s; under it whisper.cpp warns, and under 0.1 s it decodes nothing
_NEVER = 2.0  # above any probability, so that the threshold never applies


_ERROR = 4  # ggml's log level for errors
_LOADING = ("whisper_init", "whisper_model_load")  # how its log lines begin when a model cannot be loaded
_complaints: list[str] = []  # those lines, from the engine that is being made


def _log(level: object, text: str, *_: object) -> None:
    """Take a log line that whisper.cpp would print to standard error."""
    if text.strip(" .\n"):
        log.debug("%s", text.strip())
    if level == _ERROR and text.startswith(_LOADING):
        _complaints.append(text.strip())


class WhisperCppEngine:
    """One whisper.cpp context, with greedy decoding and no fallback. Every call sets every parameter.

    The file at `options.path` must have been verified: a damaged one crashes whisper.cpp.
    """

    device = Device.CPU  # a GPU, if it was built for one: the bindings do not say
    beams = False
    batch_sizes = (1,)
    workers = 1

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
        # Otherwise the bindings release the callback after the interpreter is gone, which aborts the process.
        atexit.register(whisper.whisper_log_set, None)
        _complaints.clear()
        self._context = whisper.whisper_init_from_file_with_params(str(options.path), parameters)
        if _complaints:  # the bindings return a context even so, and any call on it would crash
            raise EngineError(f"whisper.cpp cannot load {options.path}: {_complaints[0]}")
        self._languages = {"en"}
        # On an English-only model "auto" detects a random language, which later calls would keep.
        if whisper.whisper_is_multilingual(self._context):
            known = range(whisper.whisper_lang_max_id() + 1)
            self._languages = {"auto", *(whisper.whisper_lang_str(i) for i in known)}

    @property
    def model(self) -> str:
        return self._options.path.stem

    @property
    def multilingual(self) -> bool:
        return "auto" in self._languages

    def transcribe(  # noqa: PLR0913 - see `Engine`
        self,
        samples: NDArray[np.float32],
        language: str | None,
        stop: Stop | None = None,
        *,
        attempt: int = 0,
        quick: bool = False,  # noqa: ARG002 - every pass is greedy
        guidance: Guidance = UNGUIDED,
    ) -> Decoded:
        length = len(samples)
        if length < _SHORTEST:
            samples = np.concatenate([samples, np.zeros(_SHORTEST - length, np.float32)])
        samples = np.ascontiguousarray(samples, np.float32)
        parameters = self._parameters(length, language, attempt, guidance)
        if parameters.language == "auto":
            self._prime(samples, parameters.audio_ctx)
        with stoppable(parameters, stop):
            status = whisper.whisper_full(self._context, parameters, samples, len(samples))
        if status:
            if stop is not None and stop.requested():
                raise Stopped("stopped in the middle of the window")
            raise EngineError(f"whisper_full returned {status}")
        tokens = _read_tokens(self._context)
        spoken = whisper.whisper_lang_str(whisper.whisper_full_lang_id(self._context))
        return Decoded(segments(tokens, length), spoken, endless=len(tokens) > parameters.max_tokens)

    def transcribe_many(
        self, speech: Sequence[Speech], stop: Stop | None = None, *, attempt: int = 0, quick: bool = False
    ) -> list[Decoded]:
        """One window after the other: whisper.cpp has no batches."""
        return [
            self.transcribe(samples, language, stop, attempt=attempt, quick=quick, guidance=guidance)
            for samples, language, guidance in speech
        ]

    def close(self) -> None:
        """Free the model. The bindings do not free it when the object is deleted."""
        whisper.whisper_free(self._context)
        del self._context
        memory.trim_heap()

    def work(self, samples: int, *, attempt: int = 0) -> float:
        """The encoder works on the context and the decoder on the window, at much the same cost per second.

        docs/performance.md has the measurement.
        """
        positions = self._positions(samples)
        work = (positions * POSITION + samples) / SAMPLE_RATE
        return work * self._positions(samples, attempt) / positions

    def _positions(self, samples: int, attempt: int = 0) -> int:
        """Encoder positions for a window."""
        first = fitted(samples, self._fit, flash=self.flash)
        first = max(first, self._least)
        return first if not attempt else wider(first)

    def _prime(self, samples: NDArray[np.float32], positions: int) -> None:
        """Set the context for language detection: whisper.cpp would detect with the last pass's context."""
        parameters = whisper.whisper_full_default_params(whisper.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        parameters.n_threads, parameters.audio_ctx = self._options.threads, positions
        parameters.print_progress = False
        whisper.assign_encoder_begin_callback(parameters, lambda _context: False)
        try:
            whisper.whisper_full(self._context, parameters, samples, len(samples))
        finally:
            whisper.clear_encoder_begin_callback(parameters)

    def _parameters(self, length: int, language: str | None, attempt: int, guidance: Guidance = UNGUIDED) -> Any:  # noqa: ANN401 - the bindings have no types
        """Fresh parameters for one call, so that nothing carries over from the last one."""
        options, positions = self._options, self._positions(length, attempt)
        p = whisper.whisper_full_default_params(whisper.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        p.n_threads = options.threads
        wanted = (language, options.language, "en")
        p.language = next(code for code in wanted if code in self._languages)
        p.initial_prompt = options.prompt if guidance.prompt is None else guidance.prompt
        p.translate = guidance.translate and self.multilingual
        p.no_context = True  # text carried over between windows causes loops
        last = attempt == ATTEMPTS - 1 or (attempt and positions == self._positions(length))
        p.temperature = RETRY_TEMPERATURE if last else 0.0
        p.temperature_inc = 0.0  # the default fallback, 6 temperatures of 5 candidates each, multiplies the latency
        p.greedy = {"best_of": 1}
        p.token_timestamps = True
        p.suppress_blank = True
        p.print_progress = p.print_realtime = p.print_timestamps = p.print_special = False
        p.audio_ctx = positions
        p.single_segment = True  # the encoder runs once a window; else it runs again after each early timestamp
        p.max_tokens = most_tokens(length / SAMPLE_RATE, "en" if p.translate else p.language)
        # whisper.cpp drops text when both thresholds agree. The first pass keeps all text, so that none vanishes
        # without a trace. In later passes the text is in doubt already, and Whisper's no-speech probability may drop
        # it.
        p.logprob_thold, p.no_speech_thold = 0.0, NO_SPEECH if attempt else _NEVER
        return p


def _read_tokens(context: Any) -> list[Token]:  # noqa: ANN401 - the bindings have no types
    """The tokens of the last pass, up to the end of the text."""
    end_of_text, first_time = whisper.whisper_token_eot(context), whisper.whisper_token_beg(context)
    tokens: list[Token] = []
    for i in range(whisper.whisper_full_n_segments(context)):
        for j in range(whisper.whisper_full_n_tokens(context, i)):
            data = whisper.whisper_full_get_token_data(context, i, j)
            if data.id < end_of_text:
                text = whisper.whisper_token_to_bytes(context, data.id)
                tokens.append(Token(text=text, start=data.t0, end=data.t1, log=data.plog))
            elif data.id >= first_time:  # each step is 20 ms
                tokens.append(
                    Token(text=b"", start=data.t0, end=data.t1, log=data.plog, time=2 * (data.id - first_time))
                )
    return tokens
