"""Sums over an epoch that never wait for the device, and their sum over all processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from uncollapse.training.processes import processes


class Totals:
    """Named running sums in float64, kept as one vector on the device.

    Reading a number would stall a GPU, so nothing is read before :meth:`to_dict`.
    """

    def __init__(self, values: Mapping[str, float] | None = None) -> None:
        self._names = tuple(values or ())
        self._sums = torch.tensor(list((values or {}).values()), dtype=torch.float64)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one scalar to each sum; the first call fixes the names."""
        vector = torch.stack([value.detach().to(torch.float64) for value in values.values()])
        if not self._names:
            self._names = tuple(values)
            self._sums = torch.zeros_like(vector)
        self._sums = self._sums.to(vector.device) + vector

    def to_dict(self) -> dict[str, float]:
        """The sums of this process."""
        return dict(zip(self._names, self._sums.tolist(), strict=True))

    def reduced(self) -> dict[str, float]:
        """The sums over all processes; every process must ask."""
        if processes() > 1:
            dist.all_reduce(self._sums)
        return self.to_dict()
