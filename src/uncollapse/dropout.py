"""Dropout whose random numbers cost next to nothing on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16  # of 16 random bits an element


class Dropout(nn.Module):
    """Zero elements at ``rate`` and scale up the others, in training only.

    PyTorch draws a random number an element, one after the other, which on a CPU costs more
    than the layer whose states it drops. Here one 64-bit number serves four elements; the rate
    is exact to 2⁻¹⁷, and the scale is that of the rounded rate.

    Parameters
    ----------
    rate : float
        In [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    @property
    def is_idle(self) -> bool:
        """Whether nothing is dropped."""
        return not self.training or self.rate == 0

    def forward(self, values: Tensor) -> Tensor:
        """Drop elements of ``values``, of any shape."""
        if self.is_idle:
            return values
        if values.device.type != "cpu":
            return F.dropout(values, self.rate, training=True)
        dropped = min(round(self.rate * LEVELS), LEVELS - 1)
        size = values.numel()
        bits = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None)
        lanes = bits.view(torch.int16)[:size].view(values.shape)  # uniform in ±2¹⁵
        # written in their type at once: turning booleans into it takes longer than all the rest
        keep = torch.empty(values.shape, dtype=values.dtype)
        torch.ge(lanes, dropped - LEVELS // 2, out=keep)
        return values * keep.mul_(LEVELS / (LEVELS - dropped))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


@contextmanager
def no_dropout(module: nn.Module) -> Iterator[None]:
    """A context in which a module drops nothing; then it is as it was."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def repeated_noise(device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """A context in which the same random numbers come every time, and then the others again."""
    seed = int(torch.randint(2**62, ()))
    devices = [device] if device.type == "cuda" else []

    @contextmanager
    def again() -> Iterator[None]:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield

    return again
