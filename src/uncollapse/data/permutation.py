"""The rows of a corpus in random order; of a large one, an order that is computed, not kept."""

from __future__ import annotations

import math

import numpy as np

KEPT_ROWS = 1 << 24  # 64 MB; the order of more rows is a `Permutation`
_ROUNDS = 8  # 4 are enough in theory, for halves that are large


class Permutation:
    """An order of the numbers below `size`, any part of which is computed when asked for.

    A Feistel network over pairs (a, b) that number a little more than `size` places; a number
    out of range goes through the network until it is in range. So each number comes once.

    Parameters
    ----------
    size : int
    seeds : numpy.random.SeedSequence
        The order is a function of it.

    References
    ----------
    Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains" (generalised Feistel
    networks, cycle walking).
    """

    def __init__(self, size: int, seeds: np.random.SeedSequence) -> None:
        self.size = size
        self._rows = max(math.isqrt(max(size - 1, 0)) + 1, 1)  # of pairs, as in a square
        self._columns = max(-(-size // self._rows), 1)
        self._keys = seeds.generate_state(_ROUNDS, np.uint64)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, places: slice) -> np.ndarray:
        """The numbers at some places, ``(n,)`` int64."""
        numbers = np.arange(*places.indices(self.size), dtype=np.uint64)
        outside = np.arange(len(numbers))
        while len(outside):
            numbers[outside] = self._mixed(numbers[outside])
            outside = outside[numbers[outside] >= self.size]
        return numbers.astype(np.int64)

    def _mixed(self, numbers: np.ndarray) -> np.ndarray:
        """Another number for each number below rows times columns, no two alike."""
        rows, columns = np.uint64(self._rows), np.uint64(self._columns)
        row, column = np.divmod(numbers, columns)
        for turn, key in enumerate(self._keys):
            if turn % 2:
                column = (column + _hash(row, key) % columns) % columns
            else:
                row = (row + _hash(column, key) % rows) % rows
        return row * columns + column


def random_order(size: int, seeds: np.random.SeedSequence) -> np.ndarray | Permutation:
    """The numbers below `size` in random order, to be read by slices.

    Kept in memory, 4 bytes each, up to ``KEPT_ROWS``; computed on demand beyond.
    """
    if size > KEPT_ROWS:
        return Permutation(size, seeds)
    order = np.arange(size, dtype=np.int32)
    np.random.default_rng(seeds).shuffle(order)
    return order


def _hash(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """Scatter 64-bit numbers (the finaliser of splitmix64)."""
    mixed = (values + key) * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as it should
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
