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
from transcriber.domain.timeline import SAMPLE_RATE, UNGUIDED, Guidance
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
_PROMPTS = 64  # whose tokens are kept, 2 kB each: as many streams as one worker has at a time
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
        self._longest_prompt = folder.header.n_text_ctx // 2 - 1  # tokens: half of the decoder's context
        self._tokenizer: Tokenizer | None = None  # only prompts need it
        self._prompts: dict[str, list[int]] = {}

    @property
    def model(self) -> str:
        return self._options.path.name

    @property
    def multilingual(self) -> bool:
        return AUTO in self._languages

    def transcribe(
        self,
        samples: NDArray[np.float32],
        language: str | None,
        stop: Stop | None = None,
        *,
        attempt: int = 0,
        guidance: Guidance = UNGUIDED,
    ) -> Decoded:
        length, positions = len(samples), self._positions(len(samples), attempt)
        features = log_mel(samples, self._bands, positions * FRAMES_A_POSITION)
        try:
            encoded = self._model.encode(ctranslate2.StorageView.from_array(features))
            _check(stop)
            spoken = self._language(language, encoded)
            task = self._task(spoken, guidance)
            most = most_tokens(length / SAMPLE_RATE, "en" if guidance.translate and self.multilingual else spoken)
            start = [*self._prompt(guidance), *task]
            said = self._decode(encoded, start, most, attempt, last=self._is_last(length, attempt))
            tokens = self._timed(encoded, task, said, positions)
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

    def _task(self, language: str, guidance: Guidance) -> list[int]:
        """The tokens that ask for a transcript with timestamps, or for a translation."""
        numbers = self._vocabulary.numbers
        start = [numbers["<|startoftranscript|>"]]
        if self.multilingual:
            task = "<|translate|>" if guidance.translate else "<|transcribe|>"
            start += [self._vocabulary.number_of(language), numbers[task]]
        return start

    def _decode(self, encoded: Any, start: list[int], most: int, attempt: int, *, last: bool) -> list[int]:  # noqa: ANN401
        """Return the text's tokens, with timestamps. A later pass that detects no speech returns none.

        `start`: the tokens before the text.
        """
        found = self._model.generate(
            encoded,
            [start],
            beam_size=1 if last else self._options.beam_size,
            max_length=max(2 * most, most + len(start)),  # CTranslate2 uses half of it, or less after a long start
            return_no_speech_prob=True,
            suppress_tokens=self._vocabulary.unspoken,
            sampling_topk=0 if last else 1,
            sampling_temperature=RETRY_TEMPERATURE if last else 1.0,
        )[0]
        if attempt and found.no_speech_prob > NO_SPEECH:
            return []
        return list(found.sequences_ids[0])

    def _timed(self, encoded: Any, task: list[int], said: list[int], positions: int) -> list[Token]:  # noqa: ANN401
        """The tokens with times and probabilities, from one run of the decoder over all of them."""
        words = [number for number in said if self._vocabulary.text(number) is not None]
        if not words:
            return []
        frames = positions * FRAMES_A_POSITION
        aligned = self._model.align(encoded, task, [words], frames)[0]
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

    def _prompt(self, guidance: Guidance) -> list[int]:
        prompt = self._options.prompt if guidance.prompt is None else guidance.prompt
        if prompt not in self._prompts:
            if len(self._prompts) >= _PROMPTS:
                self._prompts.clear()
            self._prompts[prompt] = self._encoded(prompt)
        return self._prompts[prompt]

    def _encoded(self, prompt: str) -> list[int]:
        """The prompt's tokens, cut to the last ones that fit into half of the decoder's context."""
        if not prompt:
            return []
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_file(str(self._options.path / TOKENIZER))
        said = self._tokenizer.encode(" " + prompt.strip(), add_special_tokens=False).ids
        return [self._vocabulary.numbers["<|startofprev|>"], *said[-self._longest_prompt :]]


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
