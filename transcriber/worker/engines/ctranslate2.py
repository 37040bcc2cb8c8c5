"""CTranslate2: the same weights as whisper.cpp's, in int8 on CPUs and in float16 on GPUs.

It is an extra: `pip install 'transcriber[ctranslate2]'`, or `'transcriber[cuda]'` with what a GPU needs.

A pass cannot be stopped in the middle. A stop request is checked after the encoder and at the end. The number of
tokens is bounded, so a pass that is no longer needed soon ends by itself. Its text is discarded if it is late.

On a CPU each token of a text reads all of the decoder's weights. Windows whose texts are written together share that.
The encoder gains nothing that way: it works on one window at a time, with the positions that this one needs.
"""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ctranslate2
import numpy as np
from threadpoolctl import threadpool_limits

from transcriber.domain.errors import EngineError, Stopped
from transcriber.domain.languages import AUTO
from transcriber.domain.timeline import SAMPLE_RATE, UNGUIDED, Guidance
from transcriber.models.ct2_folder import check_model_folder
from transcriber.worker import memory
from transcriber.worker.context import POSITION, Fit, fit_for, fitted_exactly
from transcriber.worker.engine import (
    ATTEMPTS,
    LARGEST_BATCH,
    NO_SPEECH,
    RETRY_TEMPERATURE,
    Decoded,
    Device,
    Speech,
    most_tokens,
)
from transcriber.worker.engines.ct2_device import open_model
from transcriber.worker.engines.features import FRAMES_A_POSITION, log_mel
from transcriber.worker.engines.joining import joined
from transcriber.worker.engines.starts import Starts
from transcriber.worker.sharing import shares
from transcriber.worker.tokens import TICK, Token, segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from transcriber.worker.cancellation import Stop
    from transcriber.worker.engine import WhisperOptions

log = logging.getLogger(__name__)

_TICKS_A_POSITION = POSITION // TICK
_LEAST_PROBABILITY = 1e-9  # of a token; keeps its logarithm finite
# Powers of two up to the largest: the search for the best one has few steps.
_GPU_BATCHES = tuple(2**n for n in range(LARGEST_BATCH.bit_length()))
_TOGETHER = 4  # windows of one thread: eight would save a tenth more, and the first text would come twice as late


class CTranslate2Engine:
    """One CTranslate2 Whisper. The folder at `options.path` must have been verified."""

    def __init__(self, options: WhisperOptions) -> None:
        # numpy's helpers turn in place between two windows, which costs ten times what the features do.
        threadpool_limits(1, user_api="blas")
        self._options = options
        folder = check_model_folder(options.path)
        self._vocabulary, self._bands = folder.vocabulary, folder.header.n_mels
        self._least = options.audio_ctx if isinstance(options.audio_ctx, int) else 0
        self._fit = options.audio_ctx if isinstance(options.audio_ctx, Fit) else fit_for(folder.header)
        self._model: Any = open_model(options, folder.header)
        self.workers: int = self._model.num_workers
        self._pool = ThreadPoolExecutor(self.workers, "ctranslate2")
        log.info("CTranslate2 computes on %s in %s", self._model.device, self._model.compute_type)
        self._languages = frozenset({"en"})
        if folder.header.multilingual:
            self._languages = frozenset({AUTO, *self._vocabulary.languages})
        self._starts = Starts(folder, options.prompt)

    @property
    def model(self) -> str:
        return self._options.path.name

    @property
    def device(self) -> Device:
        return Device(self._model.device)

    @property
    def multilingual(self) -> bool:
        return AUTO in self._languages

    @property
    def beams(self) -> bool:
        return self._options.beam_size > 1

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        if self._options.batch_size is not None:
            return (self._options.batch_size,)
        if self.device is Device.CUDA:
            return _GPU_BATCHES
        largest = min(LARGEST_BATCH, _TOGETHER * self.workers)
        return tuple(sorted({1, *range(self.workers, largest + 1, self.workers)}))

    def transcribe(  # noqa: PLR0913 - see `Engine`
        self,
        samples: NDArray[np.float32],
        language: str | None,
        stop: Stop | None = None,
        *,
        attempt: int = 0,
        quick: bool = False,
        guidance: Guidance = UNGUIDED,
    ) -> Decoded:
        return self.transcribe_many([Speech(samples, language, guidance)], stop, attempt=attempt, quick=quick)[0]

    def transcribe_many(
        self, speech: Sequence[Speech], stop: Stop | None = None, *, attempt: int = 0, quick: bool = False
    ) -> list[Decoded]:
        """Windows whose prompts have another length are decoded by themselves, as the library demands.

        Each worker gets a share of the windows.
        """
        prompts = [self._starts.prompt(window.guidance.prompt) for window in speech]
        positions = [self._positions(len(window.samples), attempt) for window in speech]
        sharing = shares(positions, [len(prompt) for prompt in prompts], self.workers)

        def decoded(places: list[int]) -> list[Decoded]:
            theirs = [speech[place] for place in places], [prompts[place] for place in places]
            return self._pass(*theirs, stop, attempt, quick=quick)

        found: dict[int, Decoded] = {}
        each = map if len(sharing) == 1 else self._pool.map
        for places, texts in zip(sharing, each(decoded, sharing), strict=True):
            found |= dict(zip(places, texts, strict=True))
        return [found[place] for place in range(len(speech))]

    def _pass(
        self, speech: Sequence[Speech], prompts: Sequence[list[int]], stop: Stop | None, attempt: int, *, quick: bool
    ) -> list[Decoded]:
        """The pass may last as long as the longest window needs tokens."""
        lengths = [len(window.samples) for window in speech]
        longest = max(lengths)
        positions = self._positions(longest, attempt)
        last = self._is_last(longest, attempt)
        try:
            encoded = self._encoded(speech, [self._positions(n, attempt) for n in lengths], stop)
            spoken = self._spoken([window.language for window in speech], encoded)
            tasks = [self._starts.task(code, window.guidance) for code, window in zip(spoken, speech, strict=True)]
            written = [self._written(code, window) for code, window in zip(spoken, speech, strict=True)]
            most = [most_tokens(n / SAMPLE_RATE, code) for n, code in zip(lengths, written, strict=True)]
            beam = 1 if last or quick else self._options.beam_size
            starts = [[*prompt, *task] for prompt, task in zip(prompts, tasks, strict=True)]
            said = self._decode(encoded, starts, max(most), beam=beam, retried=attempt > 0, sampled=last)
            tokens = self._timed(encoded, tasks, said, positions)
        except RuntimeError as error:
            raise EngineError(f"CTranslate2 failed: {error}") from error
        _check(stop)
        return [
            Decoded(segments(tokens[n], lengths[n]), spoken[n], endless=len(said[n]) >= most[n])
            for n in range(len(speech))
        ]

    def _encoded(self, speech: Sequence[Speech], positions: Sequence[int], stop: Stop | None) -> Any:  # noqa: ANN401 - the library has no types
        """The encoder's output for all windows, each as long as the longest context.

        On a GPU it is from one pass over that context. On a CPU each window is encoded with its own positions.
        """
        longest = max(positions)
        if self.device is Device.CUDA:
            return self._model.encode(_view(np.concatenate([self._features(one, longest) for one in speech])))
        encoded = []
        for window, own in zip(speech, positions, strict=True):
            encoded.append(self._model.encode(_view(self._features(window, own))))
            _check(stop)
        if len(encoded) == 1:
            return encoded[0]
        silent = [own - len(window.samples) // POSITION for window, own in zip(speech, positions, strict=True)]
        return _view(joined([np.asarray(one) for one in encoded], silent))

    def _features(self, window: Speech, positions: int) -> NDArray[np.float32]:
        return log_mel(window.samples, self._bands, positions * FRAMES_A_POSITION)

    def work(self, samples: int, *, attempt: int = 0) -> float:
        """The encoder works on the context and the decoder on the window, at much the same cost per second."""
        positions = self._positions(samples)
        work = (positions * POSITION + samples) / SAMPLE_RATE
        return work * self._positions(samples, attempt) / positions

    def close(self) -> None:
        self._pool.shutdown()
        self._model.unload_model()
        del self._model
        memory.trim_heap()

    def _positions(self, samples: int, attempt: int = 0) -> int:
        """Encoder positions for a window."""
        return max(fitted_exactly(samples, self._fit, attempt), self._least)

    def _is_last(self, length: int, attempt: int) -> bool:
        """Whether this pass differs from the one before only by its higher temperature."""
        return attempt == ATTEMPTS - 1 or (attempt > 0 and self._positions(length, attempt) == self._positions(length))

    def _spoken(self, wanted: Sequence[str | None], encoded: Any) -> list[str]:  # noqa: ANN401 - the library has no types
        """The language of each window: the one asked for, or else the one detected."""
        spoken = [
            next(code for code in (one, self._options.language, "en") if code in self._languages) for one in wanted
        ]
        if AUTO not in spoken:
            return spoken
        found = [self._vocabulary.language(best[0][0]) for best in self._model.detect_language(encoded)]
        return [found[n] if code == AUTO else code for n, code in enumerate(spoken)]

    def _written(self, spoken: str, window: Speech) -> str:
        """The language of the text."""
        return "en" if window.guidance.translate and self.multilingual else spoken

    def _decode(  # noqa: PLR0913 - what a pass depends on
        self,
        encoded: Any,  # noqa: ANN401
        starts: list[list[int]],
        most: int,
        *,
        beam: int,
        retried: bool,
        sampled: bool,
    ) -> list[list[int]]:
        """Return each text's tokens, with timestamps. A retried window without speech has none.

        `starts`: the tokens before each text, as many for each. `most`: tokens of the longest text.
        """
        found = self._model.generate(
            encoded,
            starts,
            beam_size=beam,
            max_length=max(2 * most, most + len(starts[0])),  # the library uses half of it, or less after a long start
            return_no_speech_prob=True,
            suppress_tokens=self._vocabulary.unspoken,
            sampling_topk=0 if sampled else 1,
            sampling_temperature=RETRY_TEMPERATURE if sampled else 1.0,
        )
        return [
            [] if retried and window.no_speech_prob > NO_SPEECH else list(window.sequences_ids[0]) for window in found
        ]

    def _timed(
        self,
        encoded: Any,  # noqa: ANN401
        tasks: list[tuple[int, ...]],
        said: list[list[int]],
        positions: int,
    ) -> list[list[Token]]:
        """The tokens with times and probabilities, from one run of the decoder over all of them.

        The library aligns all windows after the same tokens, so each language and task has a run of its own.
        """
        words = [[number for number in window if self._vocabulary.text(number) is not None] for window in said]
        tokens: list[list[Token]] = [[] for _ in said]
        for task in {task for task, window in zip(tasks, words, strict=True) if window}:
            aligned = self._model.align(encoded, [*task], words, positions * FRAMES_A_POSITION)
            for n, window in enumerate(said):
                if words[n] and tasks[n] == task:
                    tokens[n] = self._with_times(window, aligned[n], positions)
        return tokens

    def _with_times(self, said: list[int], aligned: Any, positions: int) -> list[Token]:  # noqa: ANN401
        begins: dict[int, int] = {}
        for word, position in aligned.alignments:
            begins.setdefault(word, position)
        spoken = 0
        bounds = [begins.get(n, positions) * _TICKS_A_POSITION for n in range(len(aligned.text_token_probs) + 1)]
        tokens: list[Token] = []
        for number in said:
            if (text := self._vocabulary.text(number)) is not None:
                log_probability = math.log(max(aligned.text_token_probs[spoken], _LEAST_PROBABILITY))
                tokens.append(Token(text=text, start=bounds[spoken], end=bounds[spoken + 1], log=log_probability))
                spoken += 1
            elif (seconds := self._vocabulary.seconds(number)) is not None:
                tick = round(seconds * SAMPLE_RATE / TICK)
                tokens.append(Token(text=b"", start=tick, end=tick, log=0.0, time=tick))
        return tokens


def _view(array: NDArray[np.float32]) -> Any:  # noqa: ANN401
    return ctranslate2.StorageView.from_array(array)


def _check(stop: Stop | None) -> None:
    if stop is not None and stop.requested():
        raise Stopped("stopped in the middle of the window")
