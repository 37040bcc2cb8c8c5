"""Holds back text that Whisper made up. Pure.

Whisper loops, names sounds, and writes sign-offs over silence. A loop comes as many short segments, so the window's
joined text is judged. Two signs are proof: more words than anybody can say in the time, and names of sounds. The other
signs are not, as people do say "seven seven seven seven" and "thank you". So two of them must agree.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

from transcriber.domain.results import HeldBack, Recognition, Segment
from transcriber.worker.sounds import is_sign_off, without_sounds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transcriber.domain.timeline import Window
    from transcriber.worker.engine import Decoded

LEAST_CONFIDENCE = math.exp(-1.0)  # Whisper's logprob_threshold of -1.0 as a probability
HARDLY_ANY_CONFIDENCE = math.exp(-1.6)  # a fifth; few words that were really said are below it, and those are wrong
MOST_COMPRESSION = 2.4  # Whisper's compression_ratio_threshold
MOST_REPEATS = 4  # of one run of words in a row; three occur when numbers are read out
LEAST_VOICED = 0.15  # share of voiced frames; the shortest window, one word with its pre- and post-roll, has more
MOST_WORDS_A_SECOND = 8.0  # of the whole window; fast speech has 5
LEAST_CHARACTERS_A_SECOND = 2.0  # of voice; slow speech has 5, or 4 in scripts with one character a syllable
LONG_VOICE = 4.0  # seconds of voice from which so few characters are a sign: "Thank you." over music
_PUNCTUATION = ".,;:!?\u2026\"'()-"
_LONGEST_LOOP = 12  # words: a whole sentence may be repeated
_ECHO = 3  # words; commands of one or two words are said, and that is why they are in a prompt
_DOUBLED = 4  # words; people seldom repeat so many at once, but they do: only another pass can tell
_RUNAWAY = frozenset({"repetition", "too_fast", "endless"})  # signs of a pass that did not stop by itself
_UNSURE = frozenset({"low_confidence", "sign_off", "sparse", "prompt"})  # signs that another pass may refute


def review(window: Window, decoded: Decoded, model: str, *, silent: bool = False, unsure: bool = False) -> Recognition:
    """Split the engine's text into text to publish and text to hold back.

    `silent`: another pass over the window found no speech. `unsure`: several passes were `very_unsure`.
    """
    kept, held = _split(decoded.segments)
    found = signs(kept, window, silent=silent, endless=decoded.endless)
    if kept and unsure:
        found.append("no_surer")
    if len(found) > 1 or "too_fast" in found or "endless" in found:
        held += [HeldBack(segment, "+".join(found)) for segment in kept]
        kept = []
    return Recognition(tuple(kept), decoded.language, model, tuple(held))


def doubtful(decoded: Decoded, window: Window, *, runaway_only: bool = False) -> bool:
    """Whether the window's text is in doubt, so that it should be decoded once more.

    The text loops, is too fast, or has low confidence, as with a context that is too small. Or it is a sign-off, or
    very short for so much voice: a later pass tells whether anybody speaks. The name of a sound is not in doubt.
    """
    kept, _ = _split(decoded.segments)
    found = {*signs(kept, window, endless=decoded.endless)}
    wanted = _RUNAWAY if runaway_only else _RUNAWAY | _UNSURE
    return bool(found & wanted) or loops(_words(kept), 2, _DOUBLED)


def very_unsure(decoded: Decoded) -> bool:
    """Whether the confidence is so low that hardly any word can be right."""
    return _confidence(_split(decoded.segments)[0]) < HARDLY_ANY_CONFIDENCE


def weight(decoded: Decoded, window: Window) -> tuple[bool, float]:
    """A pass's rank among those over one window: first whether its words had time, then its confidence."""
    kept, _ = _split(decoded.segments)
    found = signs(kept, window, endless=decoded.endless)
    return not _RUNAWAY & {*found}, _confidence(kept)


def signs(segments: Sequence[Segment], window: Window, *, silent: bool = False, endless: bool = False) -> list[str]:
    """Return the names of all signs that the window's text was made up; none without text."""
    text = " ".join(segment.text for segment in segments)
    words = _words(segments)
    if not words:
        return []
    voice = window.voiced * window.seconds
    found = {
        "repetition": loops(words) or compression(text) > MOST_COMPRESSION,
        "low_confidence": _confidence(segments) < LEAST_CONFIDENCE,
        "no_speech": silent,
        "silence": window.voiced < LEAST_VOICED,
        "sign_off": is_sign_off(text),
        "prompt": echoes(words, window.guidance.prompt or ""),
        "sparse": voice >= LONG_VOICE and len(text) < LEAST_CHARACTERS_A_SECOND * voice,
        "too_fast": len(words) > max(1.0, MOST_WORDS_A_SECOND * window.seconds),
        "endless": endless,
    }
    return [sign for sign, present in found.items() if present]


def echoes(words: Sequence[str], prompt: str) -> bool:
    """Whether three words or more stand in the prompt just so: over noise, Whisper may repeat its prompt."""
    return len(words) >= _ECHO and f" {' '.join(words)} " in f" {' '.join(_bare(prompt))} "


def compression(text: str) -> float:
    """Length over compressed length, high for repetitive text (Whisper, Radford et al. 2022, section 4.5)."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def loops(words: Sequence[str], repeats: int = MOST_REPEATS, shortest: int = 1) -> bool:
    """Whether a run of `shortest` to twelve words occurs at least `repeats` times in a row."""
    for size in range(shortest, _LONGEST_LOOP + 1):
        matches = 0  # words in a row that equal the word one run earlier
        for i in range(size, len(words)):
            matches = matches + 1 if words[i] == words[i - size] else 0
            if matches >= size * (repeats - 1):
                return True
    return False


def _split(segments: Iterable[Segment]) -> tuple[list[Segment], list[HeldBack]]:
    """Separate what may have been said from names of sounds and from segments without time or that repeat the last."""
    kept: list[Segment] = []
    held: list[HeldBack] = []
    for segment in segments:
        said, sounds = without_sounds(segment)
        held += [HeldBack(sound, "sound") for sound in sounds]
        if said is None:
            continue
        if kept and said.text == kept[-1].text and said.end - said.start == 0:
            held.append(HeldBack(said, "repetition"))
        else:
            kept.append(said)
    return kept, held


def _words(segments: Iterable[Segment]) -> list[str]:
    """The words for comparing runs: in lower case, without punctuation around them."""
    return [word for segment in segments for word in _bare(segment.text)]


def _bare(text: str) -> list[str]:
    return [word.lower().strip(_PUNCTUATION) or word for word in text.split()]


def _confidence(segments: Sequence[Segment]) -> float:
    """Geometric mean of the segments' confidences, weighted by their words; 0.0 without any."""
    weights = [max(1, len(segment.words)) for segment in segments]
    logs = [math.log(max(segment.confidence, 1e-9)) * n for segment, n in zip(segments, weights, strict=True)]
    return math.exp(sum(logs) / sum(weights)) if weights else 0.0
