"""Does inference lag behind generation? Means of q(z|x) against means of the true p(z|x).

References
----------
He et al. 2019, "Lagging Inference Networks and Posterior Collapse in Variational
Autoencoders", section 3; Zhu et al. 2020, "A Batch Normalized Inference Network Keeps the KL
Vanishing Away", Figures 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.batches import Batch, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.encoders.context import Condition
from uncollapse.errors import UserError
from uncollapse.evaluation.likelihood import ROWS
from uncollapse.evaluation.likelihood_figures import NO_DENSITY, NO_LATENT, NO_PRIOR_DENSITY
from uncollapse.evaluation.metric import Metric, mean_over_sentences
from uncollapse.evaluation.passes import Progress, evaluating, prior_has_density
from uncollapse.latents.priors import Prior
from uncollapse.model import Model

SENTENCES = 500
POINTS = 201  # of either grid
REACH = 6.0  # prior standard deviations that the first grid covers at least
NEGLIGIBLE = 14.0  # nats below the highest point: a millionth of its density
WIDEST = 96.0  # where the search for the prior's mass ends

UNIT = "prior standard deviations"
GAP = "mean distance of E q(z|x) from E p(z|x), the mean of the model's own posterior"


@dataclass(frozen=True)
class PosteriorMeans:
    """Two posterior means of every sentence.

    Both in coordinates in which the prior is the same in every context.

    Attributes
    ----------
    approximate : (N,) float64
        E q(z|x): what inference says.
    model : (N,) float64
        E p(z|x), p(z|x) ∝ p(x|z) p(z): what the decoder says.
    deviation : float
        Standard deviation of the prior.
    """

    approximate: np.ndarray
    model: np.ndarray
    deviation: float


def obstacle(model: Model) -> str | None:
    """Why a model has no posterior gap, or None."""
    if model.latent_dim == 0:
        return NO_LATENT
    if not model.has_likelihood:
        return NO_DENSITY
    if not prior_has_density(model):
        return NO_PRIOR_DENSITY
    if model.latent_dim != 1:
        return "none: needs a latent of 1 dimension"
    anywhere = torch.tensor([[-REACH], [0.3], [REACH]])
    if not torch.equal(model.in_support(anywhere), anywhere):
        return "none: needs a latent that can be any number"
    return None


def posterior_means(
    model: Model,
    corpus: Corpus,
    *,
    sentences: int = SENTENCES,
    points: int = POINTS,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> PosteriorMeans:
    """Approximate and model posterior means by numerical integration over z.

    The first grid covers the prior; the second, as fine again, what the first found to hold
    more than a millionth of the highest density.

    Parameters
    ----------
    sentences : int
        At most this many, evenly spread over the corpus.
    points : int
        Of either grid.

    Raises
    ------
    UserError
        For a model without a likelihood, or whose latent has not exactly one dimension or is a
        code, a count or positive.
    """
    reason = obstacle(model)
    if reason is not None:
        raise UserError(f"no posterior gap: {reason.removeprefix('none: ')}")
    rows = np.linspace(0, len(corpus) - 1, min(sentences, len(corpus))).round().astype(np.int64)
    chosen = corpus.select(rows)
    approximate, exact = np.empty(len(rows)), np.empty(len(rows))
    done = 0
    with evaluating(model) as device:
        centre, deviation = _prior_moments(model, device)
        unit = torch.linspace(0, 1, points, dtype=torch.float64, device=device)
        for batch in sequential_batches(chosen, batch_size):
            batch = batch.to(device)
            posterior = model.posterior(batch)
            assert posterior is not None
            mean = posterior.mean
            for prior in _priors(model, model.read(batch)):
                mean = prior.relative_points(mean)
            own = mean[:, 0].double()  # (B,)
            low = (own - deviation).clamp(max=centre - REACH * deviation)
            high = (own + deviation).clamp(min=centre + REACH * deviation)
            for _ in range(2):
                grid = low[:, None] + (high - low)[:, None] * unit  # (B, S)
                joint = _log_joint(model, batch, grid)
                low, high = _bracket(grid, joint)
            index = batch.index.cpu().numpy()
            approximate[index] = own.cpu().numpy()
            exact[index] = (joint.softmax(1) * grid).sum(1).cpu().numpy()
            done += batch.size
            if progress is not None:
                progress("posterior gap", done, len(rows))
    return PosteriorMeans(approximate, exact, deviation)


def posterior_gap(found: PosteriorMeans) -> Metric:
    """Mean distance of the two means."""
    gap = np.abs(found.approximate - found.model) / found.deviation
    estimator = f"model posterior by integration over two grids of {POINTS} points"
    return mean_over_sentences(gap, UNIT, estimator, GAP)


def _prior_moments(model: Model, device: torch.device) -> tuple[float, float]:
    """Mean and standard deviation of the prior, by integration wherever its mass may be."""
    reach = REACH
    while True:
        grid = torch.linspace(-reach, reach, 4001, dtype=torch.float64, device=device)
        weights = model.log_prior(grid[:, None]).exp() * (grid[1] - grid[0])  # (S,)
        mass = float(weights.sum())
        if mass > 1 - 1e-6 or reach >= WIDEST:
            break
        reach *= 2
    mean = float((weights * grid).sum()) / mass
    variance = float((weights * (grid - mean).square()).sum()) / mass
    return mean, variance**0.5


def _priors(model: Model, condition: Condition | None) -> list[Prior]:
    """The prior of each row of a condition; as z has one dimension, at most one."""
    return [latent.prior.given(condition) for latent in model.named_latents().values()]


def _log_joint(model: Model, batch: Batch, grid: Tensor) -> Tensor:
    """log p(x, z) of every sentence at its own relative points ``(B, S)``, ``(B, S)`` float64."""
    dtype = next(model.parameters()).dtype
    parts = []
    condition = model.read(batch)
    points = grid[:, :, None]  # (B, S, 1)
    for prior in _priors(model, condition):
        points = prior.absolute_points(points)
    for z in points.split(max(1, ROWS // batch.size), 1):
        score = model.decoder.log_prob_samples(z.to(dtype), batch, condition).double()
        parts.append(score + model.log_prior(z, condition))
    return torch.cat(parts, 1)


def _bracket(grid: Tensor, joint: Tensor) -> tuple[Tensor, Tensor]:
    """The outermost points that matter, and one step more on either side, ``(B,)`` each."""
    matters = joint > joint.amax(1, keepdim=True) - NEGLIGIBLE  # (B, S)
    step = grid[:, 1] - grid[:, 0]
    low = grid.masked_fill(~matters, torch.inf).amin(1) - step
    high = grid.masked_fill(~matters, -torch.inf).amax(1) + step
    return low, high
