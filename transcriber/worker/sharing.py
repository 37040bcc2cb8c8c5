"""Shares the windows of a batch among an engine's workers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def shares(works: Sequence[int], kinds: Sequence[int], workers: int) -> list[list[int]]:
    """Return the places of the windows that are decoded together, the share with the most work first.

    `works`: the work of each window. `kinds`: only windows of one kind are decoded together. A share has about one part
    in `workers` of all the work. So all workers are busy, and are done at about the same time.
    """
    part = sum(works) / workers
    found: list[list[int]] = []
    held = 0.0
    for place in sorted(range(len(works)), key=lambda place: (kinds[place], -works[place])):
        work, first = works[place], found[-1][0] if found else place
        if (
            found
            and kinds[place] == kinds[first]
            and held + work / 2 <= part  # the nearest to its part, whether a little more or less
        ):
            found[-1].append(place)
            held += work
        else:
            found.append([place])
            held = work
    return sorted(found, key=lambda share: -sum(works[place] for place in share))
