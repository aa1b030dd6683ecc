"""Probes: what the z of a frozen encoder tells about labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from uncollapse.data.corpus import Corpus
from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation.clustering import CLUSTERING, RESTARTS, clustering_metrics, kmeans
from uncollapse.evaluation.features import Features, posterior_features
from uncollapse.evaluation.labels import (
    MOST_LABELS,
    Labelled,
    balanced_order,
    labelled_sentences,
    several_classes,
)
from uncollapse.evaluation.likelihood_figures import NO_LATENT
from uncollapse.evaluation.metric import Metric, mean_over_sentences, no_figure
from uncollapse.evaluation.passes import Progress, check_seed
from uncollapse.evaluation.probes import (
    CHOOSING,
    FEWEST_LABELS,
    HIDDEN,
    STOPPING,
    linear_predictions,
    mlp_predictions,
)
from uncollapse.model import Model

LINEAR = {
    "accuracy_100": 100,
    "accuracy_500": 500,
    "accuracy_1k": 1_000,
    "accuracy_2k": 2_000,
    "accuracy_10k": 10_000,
}
PROBE = "probe_accuracy"
NEEDED = {**LINEAR, PROBE: FEWEST_LABELS}  # labelled training sentences
REPRESENTATION = (*NEEDED, *CLUSTERING)

RIGHT = "share of test sentences whose label {} gets right"
DEFINITIONS = {
    **{
        name: RIGHT.format(f"a linear classifier of E_q z, trained on {count:,},")
        for name, count in LINEAR.items()
    },
    PROBE: RIGHT.format("an MLP of the mean and variance of q(z|x)"),
    **CLUSTERING,
}


def representation_probes(
    model: Model,
    train: Corpus | None,
    test: Corpus,
    *,
    metrics: Sequence[str] | None = None,
    clusters: int | None = None,
    seeds: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """Measure what z tells about labels; the encoder only reads, and learns nothing.

    ``accuracy_N``: logistic regression on the mean of q(z|x), features standardised, its L2
    strength chosen on a fifth of the N labels, then fitted to all N. The N are drawn without
    replacement, as balanced over classes as they can be. ``probe_accuracy``: an MLP on mean
    and variance, from all labelled training sentences, at most 10,000 drawn at random; a
    tenth of them decides when to stop. The others compare k-means on the means of the test
    sentences with their labels. Sentences without a label play no part.

    Parameters
    ----------
    model : Model
    train : Corpus or None
        Labelled sentences to learn from; the clustering figures do without.
    test : Corpus
        Labelled sentences to measure on. Classes are matched by name; one that training lacks
        is always wrong.
    metrics : sequence of str, optional
        Only these of ``REPRESENTATION``; each has the value that it has among all.
    clusters : int, optional
        k of k-means; the number of classes in ``test`` if not given.
    seeds : int
        Draws of labels behind each ``accuracy_N``, whose error is over them.
    seed : int
        Of all that is random.
    progress : callable, optional
        Told what is computed, how much is done, and of how much.

    Returns
    -------
    dict of str to Metric
        In the order of ``REPRESENTATION``. Without a latent variable all are dashes; where
        none are named, so are those that need more labelled sentences than there are.

    Raises
    ------
    UserError
        For an unknown metric, labels that are missing or of one class only, or a metric named
        in ``metrics`` that needs more labelled sentences than there are.
    RunError
        If a mean or variance of q(z|x) is not finite.

    References
    ----------
    Zhu et al. 2020, "A Batch Normalized Inference Network Keeps the KL Vanishing Away",
    Table 3 (linear); Long et al. 2019, "Preventing Posterior Collapse in Sequence VAEs with
    Pooling", appendix A (MLP).
    """
    for name in metrics or ():
        if name not in REPRESENTATION:
            raise unknown_name("metric", name, REPRESENTATION)
    wanted = [name for name in REPRESENTATION if metrics is None or name in metrics]
    check_seed(seed)
    if seeds < 1:
        raise UserError(f"seeds must be at least 1, not {seeds}")
    if model.latent_dim == 0:
        return {name: no_figure("share", NO_LATENT, DEFINITIONS[name]) for name in wanted}
    learnt = [name for name in wanted if name in NEEDED]
    grouping = [name for name in wanted if name in CLUSTERING]
    # complaints about labels come before a sentence is read
    tested = (several_classes if grouping else labelled_sentences)(test, "the test data")
    pool = _pool(train, learnt, metrics is not None) if learnt else None
    draws = {} if pool is None else _draws(pool, learnt, seeds, seed)
    seen = posterior_features(model, test.select(tested.rows), "test features", progress)

    result = {}
    if train is not None and draws:
        result = _accuracies(model, train, draws, tested, seen, seed, progress)
    reason = f"none: only {0 if pool is None else len(pool):,} labelled training sentences"
    for name in set(learnt) - set(draws):
        result[name] = no_figure("share", reason, DEFINITIONS[name])
    if grouping:
        k = len(np.unique(tested.labels)) if clusters is None else clusters
        how = f"k-means on E_q z, k = {k}, best of {RESTARTS} starts, seed {seed}"
        result |= clustering_metrics(tested.labels, kmeans(seen.mean, k, seed=seed), how, seed=seed)
    return {name: result[name] for name in wanted}


def _pool(train: Corpus | None, names: Sequence[str], asked: bool) -> Labelled | None:
    """The labelled training sentences, enough of them for every name that was asked for."""
    if train is None:
        if asked:
            raise UserError(f"{names[0]} needs labelled training sentences")
        return None
    pool = several_classes(train, "the training data")
    for name in names:
        if asked and len(pool) < NEEDED[name]:
            needed = f"{name} needs {NEEDED[name]:,} labelled sentences"
            raise UserError(f"{needed}; the training data has {len(pool):,}")
    return pool


def _draws(
    pool: Labelled, names: Sequence[str], seeds: int, seed: int
) -> dict[str, list[Labelled]]:
    """The sentences that each figure learns from, draw by draw, where there are enough."""
    orders = [
        balanced_order(pool.labels, np.random.default_rng((seed, draw))) for draw in range(seeds)
    ]
    draws = {}
    for name in names:
        if name == PROBE and len(pool) >= FEWEST_LABELS:
            draws[name] = [pool.sample(MOST_LABELS, seed)]
        elif name in LINEAR and len(pool) >= LINEAR[name]:
            # a draw of all there are is always the same
            different = orders if len(pool) > LINEAR[name] else orders[:1]
            draws[name] = [pool[order[: LINEAR[name]]] for order in different]
    return draws


def _accuracies(
    model: Model,
    train: Corpus,
    draws: dict[str, list[Labelled]],
    tested: Labelled,
    seen: Features,
    seed: int,
    progress: Progress | None,
) -> dict[str, Metric]:
    """Learn from every draw; ``seen`` are the features of the sentences of ``tested``."""
    rows = np.unique(np.concatenate([draw.rows for some in draws.values() for draw in some]))
    own = posterior_features(model, train.select(rows), "training features", progress)
    gold = tested.numbered_as(train.label_names).labels
    total = sum(map(len, draws.values()))
    right: dict[str, list[np.ndarray]] = {name: [] for name in draws}
    done = 0
    for name, some in draws.items():
        for draw in some:
            place = np.searchsorted(rows, draw.rows)
            if name == PROBE:
                found = mlp_predictions(own.joined[place], draw.labels, seen.joined, seed=seed)
            else:
                found = linear_predictions(own.mean[place], draw.labels, seen.mean)
            right[name].append(found == gold)
            done += 1
            if progress is not None:
                progress("probes", done, total)
    moments = "E_q z" if own.variance is None else "[E_q z, Var_q z]"
    result = {}
    for name, some in draws.items():
        if name == PROBE:
            how = (
                f"MLP of {HIDDEN} and {HIDDEN} on {moments}; {len(some[0]):,} labels (at most "
                f"{MOST_LABELS:,}, at random), one in {STOPPING} for early stopping"
            )
        else:
            how = (
                f"logistic regression, L2 strength chosen on one label in {CHOOSING}; "
                f"{len(some)} balanced draws of {LINEAR[name]:,} labels"
            )
        how += f"; seed {seed}; most frequent test class {tested.most_frequent:.1%}"
        result[name] = _share(np.stack(right[name]), how, DEFINITIONS[name])
    return result


def _share(right: np.ndarray, how: str, definition: str) -> Metric:
    """Mean of ``(draws, N)`` bool; error over draws, or over sentences if there is one."""
    several = len(right) > 1
    estimator = f"{how}; error over {'draws' if several else 'test sentences'}"
    metric = mean_over_sentences(right.mean(0), "share", estimator, definition)
    if not several:
        return metric
    error = float(right.mean(1).std(ddof=1)) / math.sqrt(len(right))
    return replace(metric, standard_error=error)
