"""What the command line's options may be: types for argparse, which name the value and what is allowed."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from datetime import UTC, datetime


def within(low: float, high: float) -> Callable[[str], float]:
    """A number in [low, high]."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return number

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number in [low, high]."""
    return lambda text: int(within(low, high)(text))


def checked(what: str, allowed: str, is_good: Callable[[str], bool]) -> Callable[[str], str]:
    """A text that passes; `what` and `allowed` say in the refusal what it should have been."""

    def parse(text: str) -> str:
        if not is_good(text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}: {allowed} allowed")
        return text

    return parse


def moment(text: str) -> datetime:
    """A date and time; without a zone it is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment: 2026-11-21T09:30 or 2026-11-21T09:30+01:00") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
