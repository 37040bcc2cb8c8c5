"""Types for argparse. Each one's error names the value and what is allowed."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from datetime import UTC, datetime


def number_between(low: float, high: float) -> Callable[[str], float]:
    """Return a type for a number in [low, high]."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return number

    return parse


def integer_between(low: int, high: int) -> Callable[[str], int]:
    """Return a type for a whole number in [low, high]; a fraction is cut off."""
    return lambda text: int(number_between(low, high)(text))


def checked(what: str, allowed: str, is_good: Callable[[str], bool]) -> Callable[[str], str]:
    """Return a type for a text that passes `is_good`; the error says `what` it should be and what is `allowed`."""

    def parse(text: str) -> str:
        if not is_good(text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}: {allowed} allowed")
        return text

    return parse


def moment(text: str) -> datetime:
    """Parse a date and time in ISO format; without a zone it is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        example = "2026-11-21T09:30 or 2026-11-21T09:30+01:00"
        raise argparse.ArgumentTypeError(f"{text!r} is not a date and time such as {example}") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
