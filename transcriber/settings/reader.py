"""Reads variables from an environment, and rejects a bad value with one sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from transcriber.domain.errors import SettingError

T = TypeVar("T")


@dataclass(slots=True)
class Reader:
    """Reads variables one by one and remembers their names. An empty value counts as not given."""

    environ: Mapping[str, str]
    names: set[str] = field(default_factory=set)

    def raw(self, name: str) -> str | None:
        self.names.add(name)
        return self.environ.get(name) or None

    def text(self, name: str, default: str = "") -> str:
        return self.raw(name) or default

    def parsed(self, name: str, default: T, parse: Callable[[str], T], allowed: str) -> T:
        value = self.raw(name)
        if value is None:
            return default
        try:
            return parse(value.strip())
        except (ValueError, KeyError):
            raise SettingError(name, value, allowed) from None

    def number(self, name: str, default: float, low: float, high: float) -> float:
        def parse(value: str) -> float:
            number = float(value)
            if not low <= number <= high or math.isnan(number):
                raise ValueError
            return number

        return self.parsed(name, default, parse, f"a number from {low:g} to {high:g}")

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        def parse(value: str) -> int:
            if not low <= int(value) <= high:
                raise ValueError
            return int(value)

        return self.parsed(name, default, parse, f"a whole number from {low} to {high}")

    def choice(self, name: str, default: str, *allowed: str) -> str:
        def parse(value: str) -> str:
            return {a.lower(): a for a in allowed}[value.lower()]

        return self.parsed(name, default, parse, " or ".join(allowed))

    def flag(self, name: str, *, default: bool = False) -> bool:
        values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
        return self.parsed(name, default, lambda value: values[value.lower()], "true or false")

    def matching(self, name: str, default: str, pattern: re.Pattern[str], allowed: str) -> str:
        def parse(value: str) -> str:
            if not pattern.fullmatch(value):
                raise ValueError
            return value

        return self.parsed(name, default, parse, allowed)
