"""Mode collapse in numbers: are components apart, are codes used, and does z go with them?

All are in nats, numbers of values or shares, which mean the same for every family, scale of z
and number of components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.distributions.base import Distribution
from uncollapse.evaluation.mixtures import mixture_parts
from uncollapse.evaluation.posterior_draws import streams
from uncollapse.latents.priors import Mixture

# Symmetric KL, nats: components nearer than this count as one. It is that of unit Gaussians one
# deviation apart. One z then tells which of the two it is from by 0.12 of ln 2 = 0.69 nats (for
# any two, by half the divergence at most), and their mixture has a single mode.
NEAR = 0.5
# of the share 1/K that all values would have in even use; below, nobody uses a value
SELDOM = 0.1


@dataclass(frozen=True)
class CodeUse:
    """How the M indexes of a discrete variable are used; means over the indexes.

    Attributes
    ----------
    mutual_information : float
        H(mean q) − mean H(q): what a value says of the sentence, nats; at most ln K.
    usage : float
        exp H(mean q): values in effective use, 1 to K.
    """

    mutual_information: float
    usage: float


@dataclass(frozen=True)
class MixtureEvidence:
    """What the components of a mixture latent, its codes and z have to do with each other.

    Attributes
    ----------
    use : CodeUse
        Of the components.
    nearest, median, farthest : float
        Symmetric KL between two components of a mixture, nats; means over the mixtures.
    distinct : float
        Components in effective use if near ones count as one; mean over the mixtures.
    variance, dispersion : float
        Var of the components' natural parameters, and L_d: sums over the mixtures, means over
        the sentences.
    kept : float
        Share of the mutual information of sentence and component that is still there if the
        component is read back from z; 0 to 1.
    """

    use: CodeUse
    nearest: float
    median: float
    farthest: float
    distinct: float
    variance: float
    dispersion: float
    kept: float


def code_use(log_probs: Tensor) -> CodeUse:
    """How a variable with log-probabilities ``(N, M, K)`` is used."""
    probs = log_probs.double().exp()
    return code_use_of_means(probs.mean(0), entropy(probs).mean(0))


def code_use_of_means(mean: Tensor, conditional: Tensor) -> CodeUse:
    """Likewise, of the mean q(c|x) ``(M, K)`` and the mean of its entropy ``(M,)``, float64."""
    marginal = entropy(mean)  # (M,)
    return CodeUse(
        mutual_information=max(0.0, float((marginal - conditional).mean())),
        usage=float(marginal.exp().mean()),
    )


def entropy(probs: Tensor) -> Tensor:
    """Entropy of probabilities ``(..., K)``, ``(...)``, nats."""
    return -torch.special.xlogy(probs, probs).sum(-1)


def in_use(mean: Tensor) -> Tensor:
    """Which values have a share that counts, of the mean q(c|x) ``(..., K)``; bool."""
    return mean >= SELDOM / mean.shape[-1]


def component_distances(prior: Mixture) -> Tensor:
    """Symmetric KL ½ (KL(k ‖ l) + KL(l ‖ k)) of components, ``(M, K, K)`` float64, nats."""
    with torch.no_grad():
        natural = prior.natural  # (M, U, K, P)
        kl = prior.family.kl(natural.unsqueeze(-2), natural.unsqueeze(-3)).sum(1)  # (M, K, K)
        return (kl + kl.transpose(-1, -2)).cpu() / 2


def distinct_components(distances: Tensor, mean: Tensor) -> float:
    """Components in effective use if near ones count as one, mean over the mixtures.

    From 1, where all that are in use have melted, to `CodeUse.usage`. What nobody uses does not
    count: nothing has pulled it from where it began.

    Parameters
    ----------
    distances : Tensor
        ``(M, K, K)``: of `component_distances`.
    mean : Tensor
        ``(M, K)``: mean q(c|x).
    """
    counts = []
    for between, shares in zip(distances, mean.double().cpu(), strict=True):
        used = in_use(shares)
        merged = _merged(between[used][:, used], shares[used] / shares[used].sum())
        counts.append(float(entropy(merged).exp()))
    return sum(counts) / len(counts)


def _merged(distances: Tensor, shares: Tensor) -> Tensor:
    """Shares ``(C,)`` of components each with those near it; no two of the C are near."""
    centers = [int(distances.argmax()) // len(distances)]
    while distances[centers].amin(0).max() >= NEAR:
        centers.append(int(distances[centers].amin(0).argmax()))
    nearest = distances[centers].argmin(0)  # (K,)
    return torch.zeros(len(centers), dtype=shares.dtype).index_add(0, nearest, shares)


def information_kept(
    prior: Mixture, posterior: Distribution, log_weights: Tensor, *, seed: int = 0
) -> float:
    """How much of what the component says of the sentence z still says, 0 to 1.

    c is drawn from q(c|x), z from q(z|x), and a component c′ from what the prior makes of z,
    p(z|c′) / Σ p(z|k). The result is I(c; c′) / I(x; c), both less what I(c; c′) is with the z of
    other sentences: few sentences in K² cells seem to tell something by chance. It cannot exceed
    1, as c′ knows of the sentence by z alone, and is 0 if z does not go with c, however far
    components are apart.

    Parameters
    ----------
    prior : Mixture
    posterior : Distribution
        ``(N, D)``.
    log_weights : Tensor
        ``(N, M, K)``: log q(c|x).
    seed : int
        Of the one z a sentence, and of which other sentence's is taken.
    """
    weights = log_weights.detach().double().cpu().exp()
    whole = entropy(weights.mean(0)) - entropy(weights).mean(0)  # (M,)
    with torch.no_grad():
        z = posterior.draw(streams(seed, torch.arange(len(weights))), 1).squeeze(1)  # (N, D)
        read = prior.component_log_prob(z.to(prior.free.device)).softmax(-1).cpu()
    others = np.random.default_rng(seed).permutation(len(read))
    kept, chance = _shared_information(weights, read), _shared_information(weights, read[others])
    room = float(whole.sum()) - chance
    return min(max((kept - chance) / max(room, torch.finfo(torch.float32).eps), 0.0), 1.0)


def _shared_information(one: Tensor, other: Tensor) -> float:
    """I of two values that are independent given the sentence, ``(N, M, K)``; sum over M."""
    joint = torch.einsum("nmk,nml->mkl", one, other) / len(one)  # (M, K, K)
    shared = entropy(joint.sum(2)) + entropy(joint.sum(1)) - entropy(joint.flatten(1))  # (M,)
    return float(shared.sum())


def mixture_evidence(
    prior: Mixture, posterior: Distribution, log_weights: Tensor, *, seed: int = 0
) -> MixtureEvidence:
    """All that tells whether a mixture has collapsed, on N ≥ 1 sentences.

    Parameters
    ----------
    prior : Mixture
    posterior : Distribution
        ``(N, D)``: q(z|x), on the prior's device.
    log_weights : Tensor
        ``(N, M, K)``: log q(c|x).
    seed : int
        Of the draws.
    """
    mean = log_weights.double().exp().mean(0).cpu()  # (M, K)
    distances = component_distances(prior)
    first, second = torch.triu_indices(prior.components, prior.components, 1)
    pairs = distances[:, first, second]  # (M, K (K − 1) / 2)
    _, dispersion, variance = mixture_parts(prior, posterior, log_weights).mean(1).tolist()
    return MixtureEvidence(
        use=code_use(log_weights),
        nearest=float(pairs.amin(1).mean()),
        median=float(pairs.median(1).values.mean()),
        farthest=float(pairs.amax(1).mean()),
        distinct=distinct_components(distances, mean),
        variance=variance,
        dispersion=dispersion,
        kept=information_kept(prior, posterior, log_weights, seed=seed),
    )
