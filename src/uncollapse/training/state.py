"""What a run knows besides its weights: progress, stop rule, best epoch, history, randomness."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uncollapse.training.plateau import Plateau

Row = dict[str, float | int | None]


@dataclass
class RunState:
    """Where a run stands. Everything here is plain data and goes into every checkpoint.

    ``batches_seen`` is the clock of schedules and limits: it counts training batches, whatever
    number of updates a strategy makes of one.

    Attributes
    ----------
    seed, sentences, batches_per_epoch, batches_per_pass, processes : int
        What a resumed run must share with the run that it goes on. A pass is over the whole
        corpus; an epoch is one too, unless ``training.epoch_batches`` says otherwise.
    epoch : int
        Finished epochs, hence also the number (from 0) of the epoch that is running.
    batch : int
        Batches done in the running epoch.
    batches_seen : int
        Batches done since the run began.
    seconds : float
        Training time of the running epoch so far.
    totals : dict
        Running sums of the epoch; see :class:`uncollapse.training.totals.Totals`.
    best_epoch, best_score
        The epoch (from 1) whose weights are kept, and its validation score (lower is better).
    rows : list of dict
        The history, a row an epoch.
    strategy : dict
        What the strategy remembers.
    stopped : str or None
        Why the run ended, once it has.
    """

    seed: int
    sentences: int
    batches_per_epoch: int
    batches_per_pass: int
    processes: int
    epoch: int = 0
    batch: int = 0
    batches_seen: int = 0
    seconds: float = 0.0
    totals: dict[str, float] = field(default_factory=dict)
    plateau: Plateau = field(default_factory=Plateau)
    best_epoch: int | None = None
    best_score: float | None = None
    rows: list[Row] = field(default_factory=list)
    warned: dict[str, str] = field(default_factory=dict)
    strategy: dict[str, Any] = field(default_factory=dict)
    stopped: str | None = None

    @property
    def place(self) -> tuple[int, int]:
        """Which pass over the corpus, and which batch of it, comes next; both from 0."""
        before = self.epoch * self.batches_per_epoch + self.batch
        return divmod(before, self.batches_per_pass)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunState:
        """The inverse of :meth:`to_dict`, also of one that knew no epochs but passes."""
        passes = {"batches_per_pass": values["batches_per_epoch"]}
        return cls(**{**passes, **values, "plateau": Plateau(**values["plateau"])})


def derived_seed(seed: int, *key: int) -> int:
    """A seed of its own for a part of a run."""
    return int(np.random.SeedSequence([seed, *key]).generate_state(1)[0])


def seed_everything(seed: int, rank: int = 0) -> None:
    """Start the random states of Python, NumPy and PyTorch from ``seed``.

    Each process draws noise of its own, so the rank is mixed in.
    """
    mixed = derived_seed(seed, rank)
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def capture_random(device: torch.device) -> dict[str, Any]:
    """Copy every random state that training can draw from, as tensors and plain numbers."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy_keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": [int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random(state: Mapping[str, Any], device: torch.device) -> None:
    """The inverse of :func:`capture_random`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys: Tensor = state["numpy_keys"]
    position, has_gauss, cached = state["numpy_rest"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
