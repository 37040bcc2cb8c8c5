"""The speech engine: what the worker asks of one, and whisper.cpp through pywhispercpp."""

from __future__ import annotations

import atexit
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import _pywhispercpp as whisper
import numpy as np

from transcriber.errors import EngineError, Stopped
from transcriber.ggml import check_model_file
from transcriber.messages import SAMPLE_RATE
from transcriber.results import Segment, Word
from transcriber.worker import memory
from transcriber.worker.abort import stoppable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transcriber.worker.stop import Stop

log = logging.getLogger(__name__)

_TICK = SAMPLE_RATE // 100  # whisper.cpp counts in 10 ms
_POSITION = 320  # samples per encoder position: 20 ms
_POSITIONS = 1500  # 30 s, what Whisper was trained on
_SHORTEST = SAMPLE_RATE  # samples; under 0.1 s whisper.cpp decodes nothing, and under 1 s it warns
# Flash attention pads keys to a multiple of 256 and attends to the padding: at other contexts it more than doubles the
# word error rate, which is what is reported of repeats and invented text at reduced contexts. Without it, contexts cut
# to the window are as right as the whole one, and on a CPU a window of three seconds takes 155 ms in place of 209 (a
# tiny-size model, one thread). So a CPU goes without it; a GPU, where it pays more, has it.
_FLASH_STEP = 256
# Positions, 0.16 s, beyond the window's end: the bundled model's word error rate does not change from 0 to 64, nor with
# contexts that are odd. Each position takes 0.55 ms of the 175 that such a window takes in all.
_SLACK = 8
_FLOOR = 128  # positions; shorter windows are rare, and cost little then
_LARGE_V3_MELS = 128  # large-v3 and turbo, for which a reduced context is reported to fail


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
    """What one pass returned: segments with bounds in samples from the window's first, and the language."""

    segments: tuple[Segment, ...]
    language: str


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
        whole: bool = False,
    ) -> Decoded:
        """Decode float32 mono 16 kHz in [-1, 1], at most 30 s. Raises `EngineError`.

        `whole` asks for the whole context of the model, where `work` would be less without.

        When `stop` is asked for, the pass ends behind its next token, and `Stopped` is raised.
        """
        ...

    def work(self, samples: int, *, whole: bool = False) -> float:
        """What the cost of a window of so many samples is proportional to, in seconds of audio that are computed on.

        `whole`: at most, as if all of it were the encoder's.
        """
        ...

    def close(self) -> None:
        """Free the model's memory; nothing may be asked of the engine afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class WhisperOptions:
    """How whisper.cpp is loaded and asked. `audio_ctx`: encoder positions of 20 ms, 0 for all 1500, None to fit."""

    path: Path
    threads: int
    language: str = "en"
    prompt: str = ""
    audio_ctx: int | None = None
    use_gpu: bool = False


def fitted_context(samples: int, *, flash: bool = False) -> int:
    """Encoder positions for a window: its own length and some slack, or as many as flash attention is right with."""
    if flash:
        return min(_POSITIONS, _FLASH_STEP * math.ceil(max(samples, 1) / _POSITION / _FLASH_STEP))
    return min(_POSITIONS, max(_FLOOR, math.ceil(samples / _POSITION) + _SLACK))


class WhisperEngine:
    """One whisper.cpp context, greedy decoding without fallback, every parameter set on every call.

    The file at `options.path` must have been verified: whisper.cpp does not survive a damaged one.
    """

    def __init__(self, options: WhisperOptions) -> None:
        self._options = options
        wide = check_model_file(options.path).n_mels >= _LARGE_V3_MELS
        self._context_size = 0 if wide and options.audio_ctx is None else options.audio_ctx
        self.flash = self._takes_flash()
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
        self._end_of_text = whisper.whisper_token_eot(self._context)

    @property
    def model(self) -> str:
        return self._options.path.stem

    def transcribe(
        self,
        samples: NDArray[np.float32],
        language: str | None,
        stop: Stop | None = None,
        *,
        whole: bool = False,
    ) -> Decoded:
        length = len(samples)
        if length < _SHORTEST:
            samples = np.concatenate([samples, np.zeros(_SHORTEST - length, np.float32)])
        samples = np.ascontiguousarray(samples, np.float32)
        parameters = self._parameters(len(samples), language, whole=whole)
        with stoppable(parameters, stop):
            status = whisper.whisper_full(self._context, parameters, samples, len(samples))
        if status:
            if stop is not None and stop():
                raise Stopped("stopped in the middle of the window")
            raise EngineError(f"whisper_full returned {status}")
        count = whisper.whisper_full_n_segments(self._context)
        segments = (self._segment(i, length) for i in range(count))
        spoken = whisper.whisper_lang_str(whisper.whisper_full_lang_id(self._context))
        return Decoded(tuple([s for s in segments if s.text]), spoken)

    def close(self) -> None:
        """Free the model: the bindings do not when the object goes."""
        whisper.whisper_free(self._context)
        del self._context
        memory.give_back()

    def work(self, samples: int, *, whole: bool = False) -> float:
        """The context goes through the encoder, the window itself through the decoder, at much the same cost.

        Measured on the bundled model: 99 to 111 us per position of the two together in windows of 1 to 30 s, while the
        cost per second of window goes from 56 to 11 ms.
        """
        positions = self._positions(samples)
        work = (positions * _POSITION + samples) / SAMPLE_RATE
        return work * _POSITIONS / positions if whole else work

    def _positions(self, samples: int, *, whole: bool = False) -> int:
        """Encoder positions that a window is given."""
        if whole:
            return _POSITIONS
        if self._context_size is not None:
            return self._context_size or _POSITIONS
        return fitted_context(samples, flash=self.flash)

    def _takes_flash(self) -> bool:
        """Whether flash attention is right, and pays, at the contexts that windows will be given."""
        if self._context_size is None:
            return self._options.use_gpu
        return self._context_size in {0, _POSITIONS} or self._context_size % _FLASH_STEP == 0

    def _parameters(self, length: int, language: str | None, *, whole: bool) -> Any:  # noqa: ANN401 - the bindings have no types
        """Fresh parameters for one call: nothing carries over from the last."""
        options = self._options
        p = whisper.whisper_full_default_params(whisper.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        p.n_threads = options.threads
        wanted = (language, options.language, "en")
        p.language = next(code for code in wanted if code in self._languages)
        p.initial_prompt = options.prompt
        p.no_context = True  # text carried over from window to window feeds loops
        p.temperature = 0.0
        p.temperature_inc = 0.0  # the default fallback, 6 temperatures of 5 candidates each, is a latency cliff
        p.greedy = {"best_of": 1}
        p.token_timestamps = True
        p.suppress_blank = True
        p.print_progress = p.print_realtime = p.print_timestamps = p.print_special = False
        p.audio_ctx = self._positions(length, whole=whole)
        return p

    def _segment(self, index: int, length: int) -> Segment:
        context = self._context
        words: list[_Word] = []
        for j in range(whisper.whisper_full_n_tokens(context, index)):
            data = whisper.whisper_full_get_token_data(context, index, j)
            if data.id >= self._end_of_text:  # specials and timestamps
                continue
            text = whisper.whisper_token_to_bytes(context, data.id)
            if text.startswith(b" ") or not words:
                words.append(_Word(b"", data.t0, data.t1, []))
            words[-1].add(text, data.t1, data.plog)
        logs = [p for word in words for p in word.logs]
        # Not of a generator: such a tuple is cut to its length afterwards, and CPython then keeps up to 2,000 of each
        # length for later, one more a window: memory that looks like a leak for the first hours.
        done = tuple([word.done(length) for word in words if word.text.strip()])
        # A model with two decoder layers gives no timestamps and a huge negative t0; words outside are clamped alike.
        start = _clamp(whisper.whisper_full_get_segment_t0(context, index), length)
        end = max(start, _clamp(whisper.whisper_full_get_segment_t1(context, index), length))
        text = whisper.whisper_full_get_segment_text(context, index).decode("utf-8", "replace").strip()
        return Segment(text, start, end, _geometric_mean(logs), done)


@dataclass(slots=True)
class _Word:
    """Tokens gathered into one word: bytes (a character may span tokens), 10 ms ticks, log probabilities."""

    text: bytes
    start: int
    end: int
    logs: list[float]

    def add(self, text: bytes, end: int, log: float) -> None:
        self.text += text
        self.end = end
        self.logs.append(log)

    def done(self, length: int) -> Word:
        start = _clamp(self.start, length)
        end = max(start, _clamp(self.end, length))
        return Word(self.text.decode("utf-8", "replace").strip(), start, end, _geometric_mean(self.logs))


def _clamp(ticks: int, length: int) -> int:
    return min(max(ticks * _TICK, 0), length)


def _geometric_mean(logs: list[float]) -> float:
    """Return exp of the mean log probability: Whisper's own measure of how sure it was. 0.0 without tokens."""
    return math.exp(sum(logs) / len(logs)) if logs else 0.0
