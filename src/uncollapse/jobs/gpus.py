"""Which GPU each of several runs side by side sees."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

VISIBLE = "CUDA_VISIBLE_DEVICES"
ANY_GPU = ("auto", "cuda")  # devices that name none in particular


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls the GPUs that this process sees."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get(VISIBLE)
    if named is None:
        return [str(number) for number in range(count)]
    # PyTorch has left out what is not here
    return [name.strip() for name in named.split(",")][:count]


class Gpus:
    """GPUs that are lent to runs: one each, and shared only by more runs than there are GPUs.

    Without it, every process would take the first GPU that it sees.

    Parameters
    ----------
    names : sequence of str
        As `visible_gpus` gives them; with fewer than two there is nothing to choose.
    at_a_time : int
        Runs side by side.
    """

    def __init__(self, names: Sequence[str], at_a_time: int) -> None:
        self.count = len(names) if len(names) > 1 else 0
        self._free: SimpleQueue[str] = SimpleQueue()
        for place in range(at_a_time if self.count else 0):
            self._free.put(names[place % self.count])

    @contextmanager
    def lent(self, device: str) -> Iterator[Mapping[str, str]]:
        """What a run adds to its environment as long as it holds a GPU.

        Parameters
        ----------
        device : str
            What it was told: a GPU that is named, as ``cuda:1``, and a CPU stay what they are.
        """
        if not self.count or device not in ANY_GPU:
            yield {}
            return
        name = self._free.get()
        try:
            yield {VISIBLE: name}
        finally:
            self._free.put(name)
