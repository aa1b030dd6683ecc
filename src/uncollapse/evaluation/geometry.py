"""The shape of a latent space: features, order of words, inference, the aggregate, paths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from uncollapse.data.batches import sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation import interpolation, lagging, word_order
from uncollapse.evaluation.aggregate import aggregate_kl, spread
from uncollapse.evaluation.interpolation import ROUGE
from uncollapse.evaluation.likelihood_figures import NATS, NO_LATENT
from uncollapse.evaluation.metric import Metric, no_figure
from uncollapse.evaluation.passes import Progress, check_seed, evaluating, posterior_pass
from uncollapse.model import Model

GEOMETRY = (
    *(f"interpolation_rouge_{name}" for name in ROUGE),
    "cosine",
    "nll_shuffled",
    "posterior_gap",
    "aggregate_kl",
)

NO_PAIR = "none: a pair needs two sentences"
COSINE = "mean cosine of the encoder features that the posterior reads, over pairs of sentences"


def geometry_probes(
    model: Model,
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 32,
    samples: int = 500,
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """Measure the geometry of a model's latent space; every figure says how.

    Nothing depends on batch size, on the mode that the model is in, or on the global random
    state, and nothing of these is changed.

    Parameters
    ----------
    model : Model
    corpus : Corpus
        Encoded with ``tokenizer``.
    tokenizer : Tokenizer
    metrics : sequence of str, optional
        Only these of `GEOMETRY`.
    seed : int
        Of pairs, permutations and draws.
    batch_size : int
        Sentences encoded together.
    samples : int
        Importance samples a sentence behind ``nll_shuffled``.
    progress : callable, optional
        Told what is computed, sentences done, and sentences in all.

    Returns
    -------
    dict of str to Metric
        In the order of `GEOMETRY`. A figure that the model does not have is there, with value
        None and the reason.

    Raises
    ------
    UserError
        For an unknown metric, ``samples`` below 1 or a negative seed.
    """
    for name in metrics or ():
        if name not in GEOMETRY:
            raise unknown_name("metric", name, GEOMETRY)
    wanted = set(GEOMETRY if metrics is None else metrics)
    if samples < 1:
        raise UserError(f"samples must be at least 1, not {samples}")
    check_seed(seed)

    result: dict[str, Metric] = {}
    if any(name.startswith("interpolation") for name in wanted):
        result |= _interpolation(model, corpus, tokenizer, seed, batch_size, progress)
    if "cosine" in wanted:
        found = sentence_features(model, corpus, batch_size=batch_size, progress=progress)
        missing = no_figure("cosine", NO_LATENT, COSINE)
        result["cosine"] = missing if found is None else cosine_similarity(*found)
    if "nll_shuffled" in wanted:
        reason = word_order.obstacle(model)
        result["nll_shuffled"] = (
            no_figure(NATS, reason, word_order.SHUFFLED)
            if reason is not None
            else word_order.nll_shuffled(
                word_order.shuffled_likelihood(
                    model,
                    corpus,
                    samples=samples,
                    seed=seed,
                    batch_size=batch_size,
                    progress=progress,
                )
            )
        )
    if "posterior_gap" in wanted:
        reason = lagging.obstacle(model)
        result["posterior_gap"] = (
            no_figure(lagging.UNIT, reason, lagging.GAP)
            if reason is not None
            else lagging.posterior_gap(
                lagging.posterior_means(model, corpus, batch_size=batch_size, progress=progress)
            )
        )
    if "aggregate_kl" in wanted:
        chosen = corpus.select(spread(len(corpus)))
        passed = posterior_pass(model, chosen, batch_size=batch_size, seed=seed, progress=progress)
        result["aggregate_kl"] = aggregate_kl(passed, seed=seed)
    return {name: result[name] for name in GEOMETRY if name in wanted}


def _interpolation(
    model: Model,
    corpus: Corpus,
    tokenizer: Tokenizer,
    seed: int,
    batch_size: int,
    progress: Progress | None,
) -> dict[str, Metric]:
    names = {f"interpolation_rouge_{name}": name for name in ROUGE}
    if model.latent_dim == 0 or len(corpus) < 2:
        reason = NO_PAIR if model.latent_dim else NO_LATENT
        return {
            key: no_figure(interpolation.UNIT, reason, interpolation.definition_of(name))
            for key, name in names.items()
        }
    found = interpolation.interpolate_pairs(
        model, corpus, tokenizer, seed=seed, batch_size=batch_size, progress=progress
    )
    return {key: interpolation.rouge_metric(found, name) for key, name in names.items()}


# --- features -------------------------------------------------------------------------------


def sentence_features(
    model: Model, corpus: Corpus, *, batch_size: int = 32, progress: Progress | None = None
) -> tuple[Tensor, str] | None:
    """What the posterior of the first latent is read from, ``(N, H)``, and that latent's name.

    Of those that `aggregate.spread` chooses. None for a language model.
    """
    if model.latent_dim == 0:
        return None
    chosen = corpus.select(spread(len(corpus)))
    name, latent = next(iter(model.named_latents().items()))
    assert model.encoder is not None
    parts, order, done = [], [], 0
    with evaluating(model) as device:
        for batch in sequential_batches(chosen, batch_size):
            # not model.infer, which may refine posteriors at length
            batch = batch.to(device)
            found = latent.infer(model.encoder(batch), model.read(batch))
            parts.append(found.features.cpu())
            order.append(batch.index)
            done += batch.size
            if progress is not None:
                progress("features", done, len(chosen))
    return torch.cat(parts)[torch.cat(order).argsort()], name


def cosine_similarity(features: Tensor, latent: str) -> Metric:
    """Mean cosine over all pairs of rows ``(N, H)``, without the N × N of them.

    Σ_{i≠j} u_i·u_j = ‖Σ u_i‖² − Σ ‖u_i‖² of unit vectors u_i. The error is a jackknife, whose
    leave-one-out means have the same closed form.

    References
    ----------
    Long et al. 2019, "Preventing Posterior Collapse in Sequence VAEs with Pooling", section 5.2.
    """
    count = len(features)
    if count < 2:
        return no_figure("cosine", NO_PAIR, COSINE)
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    total = unit.sum(0)  # (H,)
    own = unit.square().sum(1)  # (N,) ones, or zero for a zero vector
    pairs = float(total.square().sum() - own.sum())
    error = None
    if count > 2:
        without = pairs - 2 * (unit @ total - own)  # (N,)
        means = without / ((count - 1) * (count - 2))
        error = math.sqrt((count - 1) * float(means.var(correction=0)))
    estimator = (
        f"all pairs of N = {count:,} sentences, features of latent {latent!r}; jackknife error"
    )
    return Metric(pairs / (count * (count - 1)), "cosine", error, estimator, count, COSINE)
