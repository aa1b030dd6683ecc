"""Draws from the prior of every row of a batch, given its context, each from its own source."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.batches import Batch
from uncollapse.encoders.context import Condition
from uncollapse.evaluation.passes import Precision, decoder_scores, without_turns
from uncollapse.evaluation.posterior_draws import DRAWS
from uncollapse.model import Model


def generator_of(seed: int, row: int) -> torch.Generator:
    """A row's own source of draws from the prior."""
    mixed = np.random.SeedSequence((seed, row)).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))


def row_conditions(condition: Condition | None, rows: int) -> list[Condition | None]:
    """What priors look at of each row's context, by itself; None without contexts."""
    if condition is None:
        return [None] * rows
    device = condition.vector.device
    lean = without_turns(condition.vector, condition.present, condition.memory.shape[-1])
    return [lean.select(torch.tensor([row], device=device)) for row in range(rows)]


def prior_scores(
    model: Model, batch: Batch, samples: int, seed: int, rows: int, precision: Precision
) -> Tensor:
    """log p(x|z_s) of z_s ~ p(z|context), ``(B, S)`` float64.

    A row's draws depend on (seed, corpus row) alone, and fewer are the first ones of more. The
    decoder advances at most ``rows`` at once.
    """
    condition = model.read(batch)
    contexts = row_conditions(condition, batch.size)
    # always as many rows at once: what a network makes of one may depend on how many there are
    repeated = [None if one is None else one.repeat(DRAWS) for one in contexts]
    generators = [generator_of(seed, row) for row in batch.index.tolist()]
    chunk = max(1, rows // batch.size)
    scores = []
    for first in range(0, samples, DRAWS):
        drawn = [
            model.sample_prior(DRAWS, own, condition=one)
            for own, one in zip(generators, repeated, strict=True)
        ]
        z = torch.stack([own for own in drawn if own is not None])[:, : samples - first]
        scores += [
            decoder_scores(model, part, batch, condition, precision)
            for part in z.split(chunk, 1)  # (B, ≤ DRAWS, D)
        ]
    return torch.cat(scores, 1)
