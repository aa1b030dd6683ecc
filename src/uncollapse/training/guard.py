"""Find out what became non-finite, while the parameters are still untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from uncollapse.embedding import gradient_values

if TYPE_CHECKING:
    from uncollapse.data.batches import Batch
    from uncollapse.objectives.objective import Loss
    from uncollapse.terms import Terms

SHOWN = 5  # sentences that a message lists


def find_nonfinite(terms: Terms, loss: Loss, batch: Batch, module: nn.Module) -> str | None:
    """Name the first non-finite quantity of a step, in the order in which they are computed.

    Parameters
    ----------
    terms, loss, batch
        What the step was made of.
    module : Module
        Holds the parameters, whose gradients are looked at last.

    Returns
    -------
    str or None
        For instance ``"KL of latent z, sentences 4, 17"``; None if this process saw only finite
        numbers. Sentences are rows of the training file, counted from 0 without empty lines.
    """
    suspects = {"reconstruction": terms.reconstruction}
    if loss.weight:
        suspects |= {f"KL of latent {name}": kl for name, kl in terms.kl.items()}
    suspects |= loss.parts
    suspects["loss"] = loss.total
    for name, value in suspects.items():
        bad = ~torch.isfinite(value.detach())
        if bad.any():
            return name + _sentences(bad, batch)
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not torch.isfinite(gradient_values(parameter)).all():
            return f"gradient of parameter {name.removeprefix('model.')}" + _sentences(
                torch.ones(batch.size, dtype=torch.bool), batch
            )
    return None


def _sentences(bad: Tensor, batch: Batch) -> str:
    """The rows of the corpus behind a mask over the batch, (B, …) or ()."""
    rows = bad.reshape(batch.size, -1).any(1) if bad.dim() else bad.expand(batch.size)  # (B,)
    index = sorted(batch.index.cpu()[rows.cpu()].tolist())
    more = f" and {len(index) - SHOWN} more" if len(index) > SHOWN else ""
    return f", sentences {', '.join(map(str, index[:SHOWN]))}{more}"
