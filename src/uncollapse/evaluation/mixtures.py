"""Figures of discrete variables and of mixtures: what codes cost, tell, and keep apart."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.corpus import Corpus
from uncollapse.distributions.base import Distribution
from uncollapse.evaluation.likelihood_figures import NATS, no_kl
from uncollapse.evaluation.metric import Metric, mean_over_sentences, no_figure
from uncollapse.evaluation.passes import PosteriorPass
from uncollapse.latents import COMPONENT
from uncollapse.latents.priors import Mixture
from uncollapse.model import Model

CHUNK = 1024  # sentences whose averaged priors are alive at once

CODES = {
    "kl_c": "KL(q(c|x) ‖ p(c)), summed over all codes; p(c) is uniform or, of a policy, "
    "p(c|context)",
    "mi_c": "L_mi = H(E_x q(c|x)) − E_x H(q(c|x)) of these sentences, summed over the same",
    "mi_c_mean": "L_mi of one discrete variable, the mean over all of them",
}
MIXTURES = {
    "kl_z_average": "KL(q(z|x) ‖ averaged prior), natural parameters averaged under q(c|x)",
    "kl_z_mixture": "KL(q(z|x) ‖ p(z)), p(z) the mixture itself",
    "dispersion": "L_d = Σ_k q(c=k|x) A(η_k) − A(η̄), what the averaged prior leaves out",
    "variance": "Var = Σ_k q(c=k|x) ‖η_k‖² − ‖η̄‖² of the components' natural parameters",
}
ORDER = ("kl_c", *MIXTURES, "mi_c", "mi_c_mean")
ACCURACY = "accuracy_"  # and the column
RIGHT = "share of labelled sentences whose label is the most probable value of its variable"


def mixture_names(model: Model) -> tuple[str, ...]:
    """The figures of `mixture_metrics` that a model has; none without a discrete variable."""
    names = (CODES if _code_sizes(model) else {}) | (MIXTURES if _mixtures(model) else {})
    columns = [f"{ACCURACY}{part.column}" for part in model.supervision]
    return (*(name for name in ORDER if name in names), *columns)


def mixture_metrics(model: Model, corpus: Corpus, found: PosteriorPass) -> dict[str, Metric]:
    """Measure the discrete variables of a model, and its mixtures.

    The codes c are the components of mixtures, and the units of discrete latents that are not
    under one. A discrete latent under a mixture counts as z. Where a model has several
    mixtures, or several variables, figures are sums over them.

    Parameters
    ----------
    model : Model
    corpus : Corpus
        Its classes, where a column is supervised, are numbered as they were in training.
    found : PosteriorPass
        Of the corpus.

    Returns
    -------
    dict of str to Metric
        Those of `mixture_names`, in that order. ``kl_z_mixture`` is at most the components'
        ``kl_c`` + ``kl_z_average`` + ``dispersion`` and, without a policy, KL(E_x q(c|x) ‖ p(c))
        is ``kl_c`` − ``mi_c``.

    References
    ----------
    Shi et al. 2020, "Dispersed Exponential Family Mixture VAEs for Interpretable Text
    Generation"; Zhao et al. 2018, "Unsupervised Discrete Sentence Representation Learning for
    Interpretable Neural Dialog Generation" (L_mi).
    """
    result: dict[str, Metric] = {}
    sizes = _code_sizes(model)
    if sizes:
        result |= code_metrics({name: found.variables[name] for name in sizes}, found.policies)
    if _mixtures(model):
        result |= _prior_metrics(model, found)
    for part in model.supervision:
        log_probs = found.variables[part.variable][:, part.index]
        how = f"index {part.index} of {part.variable}"
        result[f"{ACCURACY}{part.column}"] = _accuracy(corpus, part.column, log_probs, how)
    return {name: result[name] for name in mixture_names(model)}


def code_metrics(
    variables: dict[str, Tensor], policies: Mapping[str, Tensor] | None = None
) -> dict[str, Metric]:
    """KL from the prior and mutual information of discrete variables.

    Parameters
    ----------
    variables : dict of str to Tensor
        ``{variable: (N, M, K)}``: log-probabilities of the values of M variables.
    policies : mapping of str to Tensor, optional
        Likewise, those of the prior given the context; of variables without, it is uniform.

    Returns
    -------
    dict of str to Metric
        ``kl_c``, ``mi_c``, ``mi_c_mean``. The error of the mutual information is that over
        sentences of KL(q(c|x) ‖ E_x q(c|x)), whose mean it is: how a sentence changes the
        aggregate for the others cancels to first order (the delta method).
    """
    charged, told, ceilings = [], [], []
    indexes = 0
    for name, values in variables.items():
        count, groups, size = values.shape
        log_q = values.double().log_softmax(-1)  # what is f32 does not sum to 1 in every digit
        q = log_q.exp()
        mean = q.mean(0)  # (M, K)
        # 0 · ln 0 is 0; a value that nobody has is nowhere in the sum
        finite = log_q.masked_fill(q == 0, 0)
        log_mean = mean.masked_fill(mean == 0, 1).log()
        policy = (policies or {}).get(name)
        prior = -math.log(size) if policy is None else policy.double().log_softmax(-1)
        charged.append((q * (finite - prior)).sum((1, 2)))
        told.append((q * (finite - log_mean)).sum((1, 2)))
        ceiling = math.log(min(size, count))
        ceilings.append(f"{groups} of {name}, at most ln min(K, N) = {ceiling:.2f} each")
        indexes += groups
    kl, mi = torch.stack(charged).sum(0).numpy(), torch.stack(told).sum(0).numpy()  # (N,)
    what = ", ".join(
        f"{values.shape[1]} of {values.shape[2]} values in {name}"
        for name, values in variables.items()
    )
    aggregate = f"aggregate of N = {len(mi):,} posteriors; {'; '.join(ceilings)}"
    return {
        "kl_c": mean_over_sentences(kl, NATS, f"closed form; {what}", CODES["kl_c"]),
        "mi_c": mean_over_sentences(mi, "nats", aggregate, CODES["mi_c"]),
        "mi_c_mean": mean_over_sentences(mi / indexes, "nats", aggregate, CODES["mi_c_mean"]),
    }


def _prior_metrics(model: Model, found: PosteriorPass) -> dict[str, Metric]:
    """The figures of z under mixtures, summed over latents that have one."""
    parts = [
        mixture_parts(prior, found.latents[name], found.variables[f"{name}{COMPONENT}"])
        for name, prior in _mixtures(model).items()
    ]
    average, dispersion, variance = np.sum(parts, 0)
    closed = "closed form"
    result = {
        "kl_z_average": mean_over_sentences(average, NATS, closed, MIXTURES["kl_z_average"]),
        "dispersion": mean_over_sentences(dispersion, NATS, closed, MIXTURES["dispersion"]),
        "variance": mean_over_sentences(
            variance, "squared natural parameters", closed, MIXTURES["variance"]
        ),
    }
    definition = MIXTURES["kl_z_mixture"]
    if found.kl is None:
        result["kl_z_mixture"] = no_figure(NATS, no_kl(found), definition)
    else:
        kls = [found.kls[name].double().sum(1) for name in _mixtures(model)]
        values = torch.stack(kls).sum(0).numpy()
        estimator = f"{found.kl_samples} posterior samples a sentence"
        result["kl_z_mixture"] = mean_over_sentences(
            values, NATS, estimator, definition, found.kl_samples
        )
    return result


def mixture_parts(prior: Mixture, posterior: Distribution, log_weights: Tensor) -> np.ndarray:
    """KL to the averaged prior, dispersion and Var of every sentence, ``(3, N)`` float64.

    Parameters
    ----------
    prior : Mixture
    posterior : Distribution
        ``(N, D)``: q(z|x), on the prior's device.
    log_weights : Tensor
        ``(N, M, K)``: log q(c|x).
    """
    found = []
    for begin in range(0, len(log_weights), CHUNK):
        rows = slice(begin, begin + CHUNK)
        weights = log_weights[rows].double().log_softmax(-1).to(prior.free.device)
        with torch.no_grad():
            kl = prior.decompose(posterior[rows].map(Tensor.double), weights)
            variance = prior.weighted_variance(weights).sum(1)
        together = [kl.average.sum((1, 2)), kl.dispersion.sum((1, 2)), variance]
        found.append(torch.stack(together).cpu().numpy())
    return np.concatenate(found, 1)


def _accuracy(corpus: Corpus, column: str, log_probs: Tensor, how: str) -> Metric:
    """Share of labels that are the most probable of ``(N, K)`` values."""
    if column not in corpus.columns:
        return no_figure("share", f"none: the data has no column {column!r}", RIGHT)
    labels = corpus.columns[column].ids
    known = np.flatnonzero(labels >= 0)
    if not len(known):
        return no_figure("share", f"none: no sentence has a label in {column!r}", RIGHT)
    gold = labels[known]
    right = log_probs.argmax(-1).numpy()[known] == gold
    frequent = np.bincount(gold).max() / len(known)
    estimator = f"{how}; most frequent class {frequent:.1%}"
    return mean_over_sentences(right.astype(np.float64), "share", estimator, RIGHT)


def _mixtures(model: Model) -> dict[str, Mixture]:
    found = {name: latent.prior for name, latent in model.named_latents().items()}
    return {name: prior for name, prior in found.items() if isinstance(prior, Mixture)}


def _code_sizes(model: Model) -> dict[str, tuple[int, int]]:
    """All discrete variables but the latents under a mixture."""
    mixtures = _mixtures(model)
    return {name: size for name, size in model.variable_sizes().items() if name not in mixtures}
