"""What z tells about the sentence: mutual information, active units, KL per dimension."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.corpus import Corpus
from uncollapse.distributions.base import Distribution
from uncollapse.errors import UserError
from uncollapse.evaluation.metric import Metric, no_figure
from uncollapse.evaluation.passes import check_seed, posterior_pass
from uncollapse.evaluation.posterior_draws import streams
from uncollapse.model import Model

THRESHOLD = 0.01  # Burda et al. 2016
BLOCK = 256  # rows of the N × N densities alive at once
RESAMPLES = 100

MI = "I(x; z) = E_x KL(q(z|x) ‖ q(z)), q(z) the aggregate posterior of these sentences"


def mutual_information(posterior: Distribution, *, seed: int = 0) -> Metric:
    """Mutual information of sentence and z under an aggregate of N posteriors.

    E log q(z|x) − E log q̂(z), with q̂ the equal mixture of all N posteriors, its own
    included, and one z a sentence. Both terms are at the same z: this has the expectation of
    the form with a closed-form entropy (Dieng et al. 2019; He et al. 2019) with less noise,
    is 0 for equal posteriors, and never exceeds its ceiling ln N. The estimate can be
    negative, and is then reported so.

    Parameters
    ----------
    posterior : Distribution
        ``(N, D)``: a whole set, or a minibatch (whose ceiling is lower).
    seed : int
        Of the draws; row i of the noise depends on i alone.

    Returns
    -------
    Metric
        Nats. The standard error is that over sentences: how a sentence changes q̂ for the
        others cancels to first order.

    Raises
    ------
    UserError
        If the seed is negative.
    """
    check_seed(seed)
    count = len(posterior.mean)
    with torch.no_grad():
        z = posterior.draw(streams(seed, torch.arange(count)), 1).squeeze(1)  # (N, D)
        gains = []
        for begin in range(0, count, BLOCK):
            rows = slice(begin, begin + BLOCK)
            log_prob = posterior.pairwise_log_prob(z[rows])  # (n, N)
            own = log_prob.diagonal(begin)
            gains.append(own - (_logsumexp(log_prob) - math.log(count)))
    gain = torch.cat(gains).cpu()  # (N,)
    error = float(gain.std()) / math.sqrt(count) if count > 1 else None
    ceiling = math.log(count)
    estimator = (
        f"aggregate of N = {count:,} posteriors, one z each; cannot exceed ln N = {ceiling:.2f}; "
        "error over sentences"
    )
    return Metric(float(gain.mean()), "nats", error, estimator, count, MI)


def _logsumexp(values: Tensor) -> Tensor:
    # relative to the largest, exponents are as good in f32, and cost half
    highest = values.amax(1, keepdim=True)
    return highest.squeeze(1) + (values - highest).float().exp_().sum(1).double().log()


def active_units(
    means: Tensor, deviation: Tensor | float = 1.0, threshold: float = THRESHOLD
) -> Metric:
    """Count the dimensions whose posterior mean varies over sentences.

    Parameters
    ----------
    means : Tensor
        ``(N, D)``.
    deviation : Tensor or float
        Standard deviation of the prior, ``(D,)``: 1 for the standard normal, for which the
        threshold was made, and much less on a sphere of many dimensions.
    threshold : float
        A unit is active if the unbiased variance of its mean is at least this share of the
        prior's variance.

    Returns
    -------
    Metric
        The standard error is a bootstrap over sentences: not 0 where units sit at the threshold.

    References
    ----------
    Burda et al. 2016, "Importance Weighted Autoencoders", section 5.
    """
    count = len(means)
    definition = f"dimensions with Var_x(E_q z) ≥ {threshold:g} Var_p(z)"
    if count < 2:
        return no_figure("units", "none: a variance needs two sentences", definition)
    scale = torch.as_tensor(deviation).double().cpu()
    values = means.detach().double().cpu() / scale
    values = (values - values.mean(0)).numpy()  # (N, D)
    random = np.random.default_rng(0)
    scores = []
    for _ in range(RESAMPLES):
        times = np.bincount(random.integers(0, count, count), minlength=count)
        scores.append(_count_active(values, times, threshold))
    active = _count_active(values, np.ones(count), threshold)
    estimator = f"unbiased variance over N = {count:,} sentences, threshold {threshold:g}"
    error = float(np.std(scores, ddof=1))
    return Metric(float(active), "units", error, estimator, count, definition)


def _count_active(values: np.ndarray, times: np.ndarray, threshold: float) -> int:
    """Active units if row i of ``(N, D)`` occurs ``times[i]`` times."""
    count = len(values)
    mean = times @ values / count
    variance = (times @ np.square(values) - count * np.square(mean)) / (count - 1)
    return int(np.count_nonzero(variance >= threshold))


def kl_per_dimension(model: Model, corpus: Corpus, *, batch_size: int = 32) -> np.ndarray:
    """Mean KL(q ‖ p) of every dimension, ``(D,)``, nats; latents side by side.

    Raises
    ------
    UserError
        If the model has no latent variable or its posterior no density.
    """
    found = posterior_pass(model, corpus, batch_size=batch_size)
    if found is None or found.kl is None:
        raise UserError("this model has no KL: it has no latent variable with a density")
    return found.kl.double().mean(0).numpy()
