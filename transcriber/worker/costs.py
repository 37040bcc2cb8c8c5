"""What a pass costs that decodes several windows, or searches with a beam. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCosts:
    """The costs of one engine's passes.

    - `weigh`: the work of a window, from its length in samples. A pass over it alone has a cost proportional to that.
    - `most`: the most windows in a pass.
    - `partials`: the most partials in a pass. Windows that come meanwhile wait for it.
    - `full`: what a pass over `most` equal windows costs, over what a pass over one of them costs. On a CPU this is
      two thirds of `most` for each core. On a GPU it is much less.
    - `beam`: what a pass with beam search costs, over what a greedy one costs; 1.0 without beam search.
    """

    weigh: Callable[[int], float] = float
    most: int = 1
    partials: int = 1
    full: float = 1.0
    beam: float = 1.0

    def together(self, works: Sequence[float]) -> float:
        """The work of one pass over windows of these works: each further window costs the same share of a first one."""
        count = len(works)
        if count < 2:  # noqa: PLR2004 - a pass over one window
            return sum(works)
        share = (self.full - 1) / (self.most - 1)
        return sum(works) * (1 + share * (count - 1)) / count

    def in_full_passes(self, work: float) -> float:
        """The work of passes that are full, over windows of so much work."""
        return work * self.full / self.most

    def until_done(self, work: float, own: float, largest: float) -> float:
        """The most work until a window is done. `work` is that of all windows up to its end, and `own` its own.

        Windows before it fill whole passes. Its own pass may be filled by later windows, each of the `largest` work.
        """
        if self.most == 1:
            return work
        return self.in_full_passes(work - own) + self.full * max(own, largest)
