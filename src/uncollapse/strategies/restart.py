"""A decoder that starts anew behind an encoder that stays."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from uncollapse.config import Recipe
from uncollapse.latents.posteriors.batch_norm import MeanBatchNorm
from uncollapse.model import Model


@torch.no_grad()
def restart_decoder(
    model: Model, recipe: Recipe, seed: int, learning: Sequence[str] | None = None
) -> None:
    """Give decoder and prior the weights with which a new model would start.

    The shift of batch-normalised posterior means goes back to 0 with them, as in the code of
    Zhu et al. 2020 (BN-VAE): the new decoder knows nothing of it.

    Parameters
    ----------
    model : Model
        Changed in place; its encoder stays.
    recipe : Recipe
        What it was built from.
    seed : int
        Of the new weights.
    learning : sequence of str, optional
        The players that go on to learn; what is of another one stays as it is. None: all.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = Model(recipe, model.decoder.embedding.num_embeddings)
    if model.start is not None:
        fresh.take_vectors(model.start)
    old, new = model.players(), fresh.players()
    for player in ("generation", "prior"):
        if player in old and (learning is None or player in learning):
            for parameter, start in zip(old[player], new[player], strict=True):
                parameter.copy_(start)
    if learning is not None and "inference" not in learning:
        return
    for part in model.modules():
        if isinstance(part, MeanBatchNorm):
            part.shift.zero_()
