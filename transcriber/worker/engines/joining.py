"""Joins what an encoder made of windows of several lengths, so that their texts are written together. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Positions at a window's end that are repeated: 1 s, a quarter of the silence in the context of an official model.
_TAIL = 50


def joined(encoded: Sequence[NDArray[np.float32]], silent: Sequence[int]) -> NDArray[np.float32]:
    """Return the windows' encoder outputs as one array, shape (windows, longest, width).

    `encoded`: for each window, shape (1, positions, width). `silent`: how many of its last positions come after its
    samples. The silence of the shorter ones is repeated, which the encoder need not compute. The decoder attends to all
    positions alike. So that changes a text as little as a longer context does (docs/real-models.md).
    """
    longest = max(one.shape[1] for one in encoded)
    return np.concatenate([_lengthened(one, longest, tail) for one, tail in zip(encoded, silent, strict=True)])


def _lengthened(encoded: NDArray[np.float32], positions: int, silent: int) -> NDArray[np.float32]:
    _, have, width = encoded.shape
    if have == positions:
        return encoded
    tail = encoded[0, -max(1, min(silent, _TAIL)) :]
    return np.concatenate([encoded, np.resize(tail, (1, positions - have, width))], axis=1)
