"""Turns the words that a client expects to hear into a prompt. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transcriber.protocol.preferences import LONGEST_PROMPT

if TYPE_CHECKING:
    from collections.abc import Iterable


def prompt_of(terms: Iterable[object]) -> str | None:
    """Join as many terms as the daemon takes, from the first on; None if there is none. None of them is cut in two."""
    prompt = ", ".join(str(term) for term in terms).encode("utf-8", "replace").decode()
    if len(prompt) > LONGEST_PROMPT:
        prompt = prompt[: LONGEST_PROMPT + 1].rpartition(", ")[0]
    return prompt or None
