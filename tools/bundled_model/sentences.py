"""The closed vocabulary of dispatch English and the sentences drawn from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

ROOT = Path(__file__).resolve().parents[2]

DIGITS = "zero one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
SPELLING = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo "
    "sierra tango uniform victor whiskey x-ray yankee zulu"
).split()
DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = "january february march april may june july august september october november december".split()
NOUNS = (
    "train bus flight gate platform station runway tower engine pump valve door window light sensor server queue "
    "stream channel message system bridge road river harbor ship truck driver doctor patient"
).split()
STATES = (
    "ready delayed cancelled arriving departing open closed active normal critical stopped running full empty clear "
    "blocked"
).split()
VERBS = "start stop open close check call send hold move turn report confirm repeat wait".split()
DIRECTIONS = "north south east west left right".split()
COLORS = "red blue green yellow black white".split()
UNITS = "minutes seconds hours degrees meters miles percent".split()
OTHER = (
    "the to at on is and of by from for your this all please now today tomorrow morning evening hundred thousand point"
).split()
VOCABULARY = sorted(
    {*DIGITS, *TEENS, *TENS, *SPELLING, *DAYS, *MONTHS, *NOUNS, *STATES, *VERBS, *DIRECTIONS, *COLORS, *UNITS, *OTHER}
)

LONGEST = 14  # words
_LEAST_HELD_OUT = 3  # words; one or two words alone are the vocabulary itself and cannot be held out


def held_out() -> frozenset[str]:
    """Every sentence of the repository's recordings, none of which may be in training."""
    paths = [*(ROOT / "tests" / "data").glob("*.json"), ROOT / "models" / "demo.json"]
    texts = (row["words"] for path in paths for row in json.loads(path.read_text()))
    return frozenset(text for text in texts if len(text.split()) >= _LEAST_HELD_OUT)


def number(r: Random) -> list[str]:
    kind = r.choices(["digit", "teen", "tens", "hundred", "digits"], [35, 15, 25, 10, 15])[0]
    match kind:
        case "digit":
            return [r.choice(DIGITS)]
        case "teen":
            return [r.choice(TEENS)]
        case "tens":
            return [r.choice(TENS), *([r.choice(DIGITS[1:])] if r.random() < 0.6 else [])]
        case "hundred":
            return [r.choice(DIGITS[1:]), "hundred", *(["and", r.choice(TENS)] if r.random() < 0.4 else [])]
        case _:
            return r.choices(DIGITS, k=r.randint(2, 4))


def phrase(r: Random) -> list[str]:
    noun, verb, state, call = r.choice(NOUNS), r.choice(VERBS), r.choice(STATES), r.choices(SPELLING, k=r.randint(2, 4))
    patterns = (
        lambda: [noun, *number(r), "to", r.choice(["platform", "gate"]), *number(r), "is", state],
        lambda: ["the", r.choice(COLORS), noun, "is", state, r.choice(["now", "today", "tomorrow"])],
        lambda: ["please", verb, "the", noun, "at", *number(r), r.choice(UNITS)],
        lambda: [*call, *number(r)],
        lambda: ["turn", r.choice(DIRECTIONS), *number(r), "degrees", "and", verb],
        lambda: [noun, "from", r.choice(DIRECTIONS), "delayed", "by", *number(r), "minutes"],
        lambda: ["on", r.choice(DAYS), r.choice(MONTHS), *number(r), "at", *number(r)],
        lambda: [verb, "your", noun, "for", "all", r.choice(NOUNS)],
        lambda: ["this", "is", *call[:2], *number(r), verb, "now"],
        lambda: [*number(r), "point", *number(r), r.choice(UNITS)],
    )
    return r.choice(patterns)()


def random_words(r: Random, most: int) -> list[str]:
    return r.choices(VOCABULARY, k=r.randint(1, most))


def sentence(r: Random) -> list[str]:
    """Words in a natural order (in one of seven cases two phrases), or half of the time in random order.

    Random, because a decoder that learns the patterns would guess words instead of recognising them.
    """
    if r.random() < 0.5:
        return random_words(r, 9)
    return [*phrase(r), *(phrase(r) if r.random() < 0.15 else [])][:LONGEST]


def unlike(forbidden: frozenset[str], draw: Callable[[], list[str]]) -> list[str]:
    """Return the first of the drawn sentences that is not forbidden."""
    while True:
        words = draw()
        if " ".join(words) not in forbidden:
            return words
