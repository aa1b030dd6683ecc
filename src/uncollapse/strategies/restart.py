"""A decoder that starts anew behind an encoder that stays."""

from __future__ import annotations

import torch

from uncollapse.config import Recipe
from uncollapse.latents.posteriors.batch_norm import MeanBatchNorm
from uncollapse.model import Model


@torch.no_grad()
def restart_decoder(model: Model, recipe: Recipe, seed: int) -> None:
    """Give the generation player the weights with which a new model would start.

    The shift of batch-normalised posterior means goes back to 0 with it, as in the code of
    Zhu et al. 2020 (BN-VAE): the new decoder knows nothing of it.

    Parameters
    ----------
    model : Model
        Changed in place; its encoder stays.
    recipe : Recipe
        What it was built from.
    seed : int
        Of the new weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = Model(recipe, model.decoder.embedding.num_embeddings)
    pairs = zip(model.players()["generation"], fresh.players()["generation"], strict=True)
    for parameter, start in pairs:
        parameter.copy_(start)
    for part in model.modules():
        if isinstance(part, MeanBatchNorm):
            part.shift.zero_()
