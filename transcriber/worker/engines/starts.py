"""The tokens before a text, by which Whisper is told what to do: a prompt, the language, the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from transcriber.models.ct2_folder import TOKENIZER

if TYPE_CHECKING:
    from transcriber.domain.timeline import Guidance
    from transcriber.models.ct2_folder import ModelFolder

_PROMPTS = 64  # whose tokens are kept, up to 8 kB each: about as many streams as have a prompt of their own


class Starts:
    """Makes them for one model."""

    def __init__(self, folder: ModelFolder, prompt: str) -> None:
        """`prompt`: for windows that have none of their own."""
        self._folder = folder
        self._numbers = folder.vocabulary.numbers
        self._default = prompt
        self._longest = folder.header.n_text_ctx // 2 - 1  # tokens: half of the decoder's context
        self._tokenizer: Tokenizer | None = None  # only prompts need it
        self._prompts: dict[str, list[int]] = {}
        self.prompt(None)  # a tokenizer that cannot be read must not wait for the first window

    def prompt(self, text: str | None) -> list[int]:
        """The tokens of a prompt; none if it is empty. `None`: the default."""
        text = self._default if text is None else text
        if text not in self._prompts:
            if len(self._prompts) >= _PROMPTS:
                self._prompts.clear()
            self._prompts[text] = self._encoded(text)
        return self._prompts[text]

    def task(self, language: str, guidance: Guidance) -> tuple[int, ...]:
        """The tokens that ask for a transcript with timestamps, or for a translation."""
        begin = self._numbers["<|startoftranscript|>"]
        if not self._folder.header.multilingual:
            return (begin,)
        task = self._numbers["<|translate|>" if guidance.translate else "<|transcribe|>"]
        return begin, self._folder.vocabulary.number_of(language), task

    def _encoded(self, prompt: str) -> list[int]:
        """The prompt's tokens, cut to the last ones that fit into half of the decoder's context."""
        if not prompt:
            return []
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.from_file(str(self._folder.path / TOKENIZER))
        said = self._tokenizer.encode(" " + prompt.strip(), add_special_tokens=False).ids
        return [self._numbers["<|startofprev|>"], *said[-self._longest :]]
