"""Numbers that papers print under the name of a likelihood, here under names of their own.

They exist so that a table can be compared, and bound nothing.
"""

from __future__ import annotations

import numpy as np

from uncollapse.data.batches import sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.evaluation.likelihood import NATS, perplexity
from uncollapse.evaluation.metric import Metric, mean_over_sentences
from uncollapse.evaluation.passes import PosteriorPass, Progress, evaluating
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
            mean = found.posterior.mean[batch.index].to(device)[:, None]  # (B, 1, D)
            score = model.decoder.log_prob_samples(mean, batch.to(device))  # (B, 1)
            log_prob[batch.index.numpy()] = score[:, 0].cpu().numpy()
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
