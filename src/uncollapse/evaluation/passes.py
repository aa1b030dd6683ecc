"""Passes over a corpus in evaluation mode, and the noise that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.config import TimestepMeanConfig
from uncollapse.data.batches import sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.distributions.gaussian import DiagonalGaussian, concatenate
from uncollapse.errors import UserError
from uncollapse.latents import Inference, Latent
from uncollapse.latents.divergences import TimestepMean
from uncollapse.model import Model
from uncollapse.tuning import tuned_process

Progress = Callable[[str, int, int], None]  # what is computed, sentences done, sentences in all


@contextmanager
def evaluating(model: Model) -> Iterator[torch.device]:
    """Dropout off, moving averages frozen, f32, no gradients; puts everything back.

    Yields the device of the model.
    """
    device = next(model.parameters()).device
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        # figures are f32, also inside a mixed-precision run
        with tuned_process(), torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield device
    finally:
        for part, mode in modes:
            part.training = mode


class SentenceNoise:
    """Standard normal noise of every sentence of a batch, from a stream of its own.

    A stream depends on (seed, corpus row) alone. Hence no figure depends on batching or on
    the global random state, and fewer samples are the first ones of more.

    Parameters
    ----------
    seed : int
    index : Tensor
        ``(B,)``: rows in the corpus.
    """

    def __init__(self, seed: int, index: Tensor) -> None:
        self._streams = [np.random.default_rng((seed, row)) for row in index.tolist()]

    def draw(self, samples: int, dim: int) -> Tensor:
        """The next samples of every sentence, ``(B, S, D)`` float64."""
        drawn = [stream.standard_normal((samples, dim)) for stream in self._streams]
        return torch.from_numpy(np.stack(drawn))


def check_seed(seed: int) -> None:
    """Refuse a negative seed with a UserError."""
    if seed < 0:
        raise UserError(f"the seed must not be negative, but is {seed}")


@dataclass(frozen=True)
class PosteriorPass:
    """Posteriors of a whole corpus, in its order.

    Attributes
    ----------
    posterior : DiagonalGaussian
        ``(N, D)``, of the z that the decoder sees, all latents side by side.
    kl : Tensor or None
        ``(N, D)``: KL(q ‖ p) per dimension, nats; None without a density.
    step_kl : Tensor or None
        ``(N,)``: mean KL of the steps that a timestep-mean divergence looks at, plus the KL of
        the other latents; None where no latent has that divergence.
    """

    posterior: DiagonalGaussian
    kl: Tensor | None
    step_kl: Tensor | None


def posterior_pass(
    model: Model, corpus: Corpus, *, batch_size: int = 32, progress: Progress | None = None
) -> PosteriorPass | None:
    """Encode every sentence; None for a language model."""
    latents = [part for part in model.latents.values() if isinstance(part, Latent)]
    if not latents:
        return None
    stepwise = has_step_divergence(model)
    size = (len(corpus), model.latent_dim)
    mean, log_variance, kl = torch.empty(size), torch.empty(size), torch.empty(size)
    step_kl = torch.empty(len(corpus))
    done = 0
    with evaluating(model) as device:
        for batch in sequential_batches(corpus, batch_size):
            found = list(model.infer(batch.to(device)).values())
            joined = concatenate([inference.posterior for inference in found])
            mean[batch.index] = joined.mean.float().cpu()
            log_variance[batch.index] = joined.log_variance.float().cpu()
            if model.has_density:
                pairs = list(zip(latents, found, strict=True))
                parts = [latent.kl(inference) for latent, inference in pairs]
                kl[batch.index] = torch.cat(parts, -1).float().cpu()
                if stepwise:
                    charged = torch.stack([_charged(*pair) for pair in pairs]).sum(0)
                    step_kl[batch.index] = charged.float().cpu()
            done += batch.size
            if progress is not None:
                progress("posteriors", done, len(corpus))
    dense = model.has_density
    return PosteriorPass(
        DiagonalGaussian(mean, log_variance),
        kl if dense else None,
        step_kl if dense and stepwise else None,
    )


def has_step_divergence(model: Model) -> bool:
    """Whether a latent is trained with the mean KL of its steps (TWR-VAE)."""
    latents = model.latents.values()
    return any(isinstance(latent.divergence, TimestepMean) for latent in latents)


def _charged(latent: Latent, inference: Inference) -> Tensor:
    """The divergence that the latent's objective is about, without floors, ``(B,)``."""
    if not isinstance(latent.divergence, TimestepMean):
        return latent.kl(inference).sum(-1)
    config = TimestepMeanConfig(kind="timestep-mean", last=latent.divergence.last)
    return TimestepMean(config)(inference, latent.prior)
