"""Numbers that papers print under the name of a likelihood, here under names of their own.

They exist so that a table can be compared, and bound nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from uncollapse.data.batches import sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.distributions.product import side_by_side
from uncollapse.evaluation.likelihood_figures import NATS, perplexity
from uncollapse.evaluation.metric import Metric, mean_over_sentences
from uncollapse.evaluation.passes import (
    PosteriorPass,
    Progress,
    evaluating,
)
from uncollapse.evaluation.posterior_draws import SentenceDraws
from uncollapse.evaluation.prior_draws import generator_of, row_conditions
from uncollapse.latents.divergences import DualDivergence
from uncollapse.latents.divergences.base import context_vector
from uncollapse.model import Model

NLL_TWR = "−log p(x|E z) + mean over steps of KL(q(z_t|x) ‖ p); not a bound on −log p(x)"
PPL_TWR = "exp(Σ nll_twr / Σ (words + 2)): counts <s>, which is never predicted; not a bound"


def twr(
    model: Model,
    corpus: Corpus,
    found: PosteriorPass,
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """``nll_twr`` and ``ppl_twr``: NLL and PPL as TWR-VAE's code computes them.

    The reconstruction is at the posterior mean, and the KL charged is not that of the z that
    the decoder sees. Padding, which the official code counts as steps, does not count here.

    References
    ----------
    Li et al. 2020, "Improving Variational Autoencoder for Text Modelling with Timestep-Wise
    Regularisation", Tables 2 and 3.

    Parameters
    ----------
    found : PosteriorPass
        Of this corpus, with ``step_kl``.
    """
    assert found.step_kl is not None, "only for a latent with a timestep-mean divergence"
    log_prob = np.empty(len(corpus))
    done = 0
    with evaluating(model) as device:
        for batch in sequential_batches(corpus, batch_size):
            mean = model.in_support(found.means[batch.index]).to(device)[:, None]  # (B, 1, D)
            batch = batch.to(device)
            score = model.decoder.log_prob_samples(mean, batch, model.read(batch))  # (B, 1)
            log_prob[batch.index.cpu().numpy()] = score[:, 0].cpu().numpy()
            done += batch.size
            if progress is not None:
                progress("paper variants", done, len(corpus))
    values = found.step_kl.double().numpy() - log_prob
    estimator = "at the posterior mean"
    tokens = corpus.lengths + 2
    return {
        "nll_twr": mean_over_sentences(values, NATS, estimator, NLL_TWR),
        "ppl_twr": perplexity(values, tokens, estimator, PPL_TWR, 0),
    }


NLL_IVAE = "−E_q log p(x|z) + the learned KL; not a bound on −log p(x)"
KL_IVAE = "learned dual form E_q ν(z, x) − E_p exp ν(z, x) + 1 of KL(q(z|x) ‖ p(z)): at most it"
MI_IVAE = "learned KL of the posteriors minus learned KL of the aggregate posterior"


def ivae(
    model: Model,
    corpus: Corpus,
    *,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """``nll_ivae``, ``kl_ivae`` and ``mi_ivae``: as iVAE measures itself, with its own critic.

    The learned KL is a lower bound on the true one (at most, in expectation), so the NLL that
    it gives can lie below the true one: it flatters. Given contexts, p is the prior of each
    response's context, and the aggregate posterior that of all responses to it.

    References
    ----------
    Fang et al. 2019, "Implicit Deep Latent Variable Models for Text Generation", Table 2.
    """
    assert has_learned_divergence(model), "only where every divergence is learned"
    latents = list(model.named_latents().items())
    scores = np.zeros((len(corpus), 3))  # log p(x|z), learned KL of q(z|x), and of q(z)
    done = 0
    with evaluating(model) as device:
        for batch in sequential_batches(corpus, batch_size):
            batch = batch.to(device)
            condition = model.read(batch)
            found = model.infer(batch, condition=condition)
            rows = batch.index.cpu().numpy()
            # all latents together: each takes noise of its own from the sentence's stream
            posterior = side_by_side([found[name].posterior for name, _ in latents])
            z = SentenceDraws(posterior, seed, batch.index).draw(1).float()  # (B, 1, D)
            generators = [generator_of(seed, row) for row in rows.tolist()]
            contexts = row_conditions(condition, batch.size)
            context = context_vector(condition)
            parts = z[:, 0].split([latent.dim for _, latent in latents], -1)
            for (name, latent), part in zip(latents, parts, strict=True):
                features, divergence = found[name].features, latent.divergence
                assert isinstance(divergence, DualDivergence)
                pairs = zip(contexts, generators, strict=True)
                drawn = [latent.prior.given(one).sample(1, own) for one, own in pairs]
                other = torch.cat(drawn).to(part)
                pair = divergence.estimates(part, other, features, context)
                scores[rows, 1:] += torch.stack(pair, 1).cpu().numpy()
            score = model.decoder.log_prob_samples(z, batch, condition)  # (B, 1)
            scores[rows, 0] = score[:, 0].cpu().numpy()
            done += batch.size
            if progress is not None:
                progress("paper variants", done, len(corpus))
    reconstruction, conditional, aggregate = scores.T
    estimator = "one draw from posterior and prior a sentence"
    return {
        "nll_ivae": mean_over_sentences(conditional - reconstruction, NATS, estimator, NLL_IVAE),
        "kl_ivae": mean_over_sentences(conditional, NATS, estimator, KL_IVAE),
        "mi_ivae": mean_over_sentences(conditional - aggregate, "nats", estimator, MI_IVAE),
    }


def has_learned_divergence(model: Model) -> bool:
    """Whether every latent is trained with a learned KL (iVAE)."""
    return len(model.latents) > 0 and all(map(_is_dual, model.latents.values()))


def _is_dual(latent: nn.Module) -> bool:
    return isinstance(latent.divergence, DualDivergence)
