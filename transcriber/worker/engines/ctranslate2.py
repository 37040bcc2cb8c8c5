"""CTranslate2: the same weights as whisper.cpp's, in int8 on CPUs. An extra: `pip install 'transcriber[ctranslate2]'`.

A pass cannot be stopped in the middle. A stop request is checked after the encoder and at the end. The number of
tokens is bounded, so a pass that is no longer needed soon ends by itself. Its text is discarded if it is late.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import ctranslate2
from tokenizers import Tokenizer

from transcriber.domain.errors import EngineError, ModelError, SettingError, Stopped
from transcriber.domain.languages import AUTO
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.models.ct2_folder import TOKENIZER, check_model_folder
from transcriber.worker import memory
from transcriber.worker.context import POSITION, Fit, fit_for, fitted_exactly
from transcriber.worker.engine import ATTEMPTS, NO_SPEECH, RETRY_TEMPERATURE, Decoded, Device, most_tokens
from transcriber.worker.engines.features import FRAMES_A_POSITION, log_mel
from transcriber.worker.tokens import TICK, Token, segments

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from transcriber.worker.cancellation import Stop
    from transcriber.worker.engine import WhisperOptions

log = logging.getLogger(__name__)

_TICKS_A_POSITION = POSITION // TICK
_LEAST_PROBABILITY = 1e-9  # of a token; keeps its logarithm finite


class CTranslate2Engine:
    """One CTranslate2 Whisper. The folder at `options.path` must have been verified."""

    def __init__(self, options: WhisperOptions) -> None:
        self._options = options
        folder = check_model_folder(options.path)
        self._vocabulary, self._bands = folder.vocabulary, folder.header.n_mels
        self._least = options.audio_ctx if isinstance(options.audio_ctx, int) else 0
        self._fit = options.audio_ctx if isinstance(options.audio_ctx, Fit) else fit_for(folder.header)
        device = _device(options.device)
        try:
            self._model: Any = ctranslate2.models.Whisper(
                str(options.path),
                device=device,
                compute_type=options.compute_type or ("float16" if device is Device.CUDA else "int8"),
                intra_threads=options.threads,
            )
        except (RuntimeError, ValueError) as error:
            raise ModelError(str(options.path), f"cannot be loaded by CTranslate2: {error}") from error
        log.info("CTranslate2 computes on %s in %s", self._model.device, self._model.compute_type)
        self._languages = frozenset({"en"})
        if folder.header.multilingual:
            self._languages = frozenset({AUTO, *self._vocabulary.languages})
        self._prompt = self._encoded(options.prompt, folder.header.n_text_ctx)

    @property
    def model(self) -> str:
        return self._options.path.name

    def transcribe(
        self,
        samples: NDArray[np.float32],
        language: str | None,
        stop: Stop | None = None,
        *,
        attempt: int = 0,
    ) -> Decoded:
        length, positions = len(samples), self._positions(len(samples), attempt)
        features = log_mel(samples, self._bands, positions * FRAMES_A_POSITION)
        try:
            encoded = self._model.encode(ctranslate2.StorageView.from_array(features))
            _check(stop)
            spoken = self._language(language, encoded)
            most = most_tokens(length / SAMPLE_RATE, spoken)
            said = self._decode(encoded, spoken, most, attempt, last=self._is_last(length, attempt))
            tokens = self._timed(encoded, spoken, said, positions)
        except RuntimeError as error:
            raise EngineError(f"CTranslate2 failed: {error}") from error
        _check(stop)
        return Decoded(segments(tokens, length), spoken, endless=len(said) >= most)

    def work(self, samples: int, *, attempt: int = 0) -> float:
        """The encoder works on the context and the decoder on the window, at much the same cost per second."""
        positions = self._positions(samples)
        work = (positions * POSITION + samples) / SAMPLE_RATE
        return work * self._positions(samples, attempt) / positions

    def close(self) -> None:
        self._model.unload_model()
        del self._model
        memory.trim_heap()

    def _positions(self, samples: int, attempt: int = 0) -> int:
        """Encoder positions for a window."""
        return max(fitted_exactly(samples, self._fit, attempt), self._least)

    def _is_last(self, length: int, attempt: int) -> bool:
        """Whether this pass differs from the one before only by its higher temperature."""
        return attempt == ATTEMPTS - 1 or (attempt > 0 and self._positions(length, attempt) == self._positions(length))

    def _language(self, wanted: str | None, encoded: Any) -> str:  # noqa: ANN401 - the library has no types
        asked = (wanted, self._options.language, "en")
        spoken = next(code for code in asked if code in self._languages)
        if spoken != AUTO:
            return spoken
        name, _ = self._model.detect_language(encoded)[0][0]
        return self._vocabulary.language(name)

    def _task(self, language: str) -> list[int]:
        """The prompt tokens for a transcript with timestamps."""
        numbers = self._vocabulary.numbers
        start = [numbers["<|startoftranscript|>"]]
        if AUTO in self._languages:
            start += [self._vocabulary.number_of(language), numbers["<|transcribe|>"]]
        return start

    def _decode(self, encoded: Any, language: str, most: int, attempt: int, *, last: bool) -> list[int]:  # noqa: ANN401
        """Return the text's tokens, with timestamps. A later pass that detects no speech returns none."""
        found = self._model.generate(
            encoded,
            [[*self._prompt, *self._task(language)]],
            beam_size=1 if last else self._options.beam_size,
            max_length=self._longest(most),
            return_no_speech_prob=True,
            suppress_tokens=self._vocabulary.unspoken,
            sampling_topk=0 if last else 1,
            sampling_temperature=RETRY_TEMPERATURE if last else 1.0,
        )[0]
        if attempt and found.no_speech_prob > NO_SPEECH:
            return []
        return list(found.sequences_ids[0])

    def _longest(self, most: int) -> int:
        """The `max_length` to pass. CTranslate2 uses half of it, or less when the prompt is longer than that half."""
        return max(2 * most, most + len(self._prompt) + 3)

    def _timed(self, encoded: Any, language: str, said: list[int], positions: int) -> list[Token]:  # noqa: ANN401
        """The tokens with times and probabilities, from one run of the decoder over all of them."""
        words = [number for number in said if self._vocabulary.text(number) is not None]
        if not words:
            return []
        frames = positions * FRAMES_A_POSITION
        aligned = self._model.align(encoded, self._task(language), [words], frames)[0]
        begins: dict[int, int] = {}
        for word, position in aligned.alignments:
            begins.setdefault(word, position)
        bounds = [begins.get(i, positions) * _TICKS_A_POSITION for i in range(len(words) + 1)]
        probabilities = iter(aligned.text_token_probs)
        tokens: list[Token] = []
        spoken = 0
        for number in said:
            if (text := self._vocabulary.text(number)) is not None:
                log_probability = math.log(max(next(probabilities), _LEAST_PROBABILITY))
                tokens.append(Token(text=text, start=bounds[spoken], end=bounds[spoken + 1], log=log_probability))
                spoken += 1
            elif (seconds := self._vocabulary.seconds(number)) is not None:
                tick = round(seconds * SAMPLE_RATE / TICK)
                tokens.append(Token(text=b"", start=tick, end=tick, log=0.0, time=tick))
        return tokens

    def _encoded(self, prompt: str, context: int) -> list[int]:
        """The prompt's tokens, cut to the last ones that fit into half of the decoder's context."""
        if not prompt:
            return []
        tokenizer = Tokenizer.from_file(str(self._options.path / TOKENIZER))
        said = tokenizer.encode(" " + prompt.strip(), add_special_tokens=False).ids
        return [self._vocabulary.numbers["<|startofprev|>"], *said[1 - context // 2 :]]


def _device(asked: Device) -> Device:
    """The hardware to run on. With `auto` that is a GPU if there is one. Raises `SettingError` if `cuda` has none."""
    if asked is Device.CPU:
        return asked
    if ctranslate2.get_cuda_device_count() > 0:
        return Device.CUDA
    if asked is Device.CUDA:
        raise SettingError("WHISPER_DEVICE", str(asked), "cpu or auto here, as CTranslate2 finds no GPU")
    return Device.CPU


def _check(stop: Stop | None) -> None:
    if stop is not None and stop.requested():
        raise Stopped("stopped in the middle of the window")
