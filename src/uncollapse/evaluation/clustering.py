"""How far an assignment of sentences to clusters or codes agrees with their labels."""

from __future__ import annotations

import warnings

import numpy as np

from uncollapse.errors import UserError
from uncollapse.evaluation.metric import Metric

CLUSTERING = {
    "homogeneity": "1 − H(label | cluster) / H(label): 1 if a cluster has one label only",
    "completeness": "1 − H(cluster | label) / H(cluster): 1 if a label is in one cluster only",
    "v_measure": "harmonic mean of homogeneity and completeness",
}
RESAMPLES = 200
RESTARTS = 10  # of k-means


def clustering_metrics(
    labels: np.ndarray, assignments: np.ndarray, how: str, *, seed: int = 0
) -> dict[str, Metric]:
    """Homogeneity, completeness and V-measure.

    Parameters
    ----------
    labels : ndarray
        ``(N,)`` int: classes, -1 where missing (these sentences are left out).
    assignments : ndarray
        ``(N,)`` int: the cluster or code of every sentence; any numbers.
    how : str
        Where the assignments are from, for the estimator.
    seed : int
        Of the bootstrap over sentences that gives the error; the assignments stay.

    Raises
    ------
    UserError
        If no sentence has a label.

    References
    ----------
    Rosenberg and Hirschberg 2007, "V-Measure: A Conditional Entropy-Based External Cluster
    Evaluation Measure".
    """
    known = labels >= 0
    count = int(np.count_nonzero(known))
    if not count:
        raise UserError("no sentence has a label to compare the clusters with")
    pairs = np.stack([labels[known], assignments[known]], 1)
    cells, times = np.unique(pairs, axis=0, return_counts=True)  # (C, 2), (C,)
    _, label = np.unique(cells[:, 0], return_inverse=True)
    found, cluster = np.unique(cells[:, 1], return_inverse=True)
    values = _scores(times, label, cluster)
    # drawing N sentences with replacement is drawing from their cells
    drawn = np.random.default_rng(seed).multinomial(count, times / count, RESAMPLES)
    errors = np.std([_scores(row, label, cluster) for row in drawn], 0, ddof=1)
    estimator = f"{how}; {len(found)} in use; {count:,} sentences; bootstrap error"
    return {
        name: Metric(float(value), "share", float(error), estimator, count, definition)
        for (name, definition), value, error in zip(CLUSTERING.items(), values, errors, strict=True)
    }


def kmeans(features: np.ndarray, clusters: int, *, seed: int = 0) -> np.ndarray:
    """Cluster of every row of ``(N, D)``, ``(N,)``: the best of 10 starts of k-means.

    Raises
    ------
    UserError
        If there are fewer rows than clusters.
    """
    from sklearn.cluster import KMeans

    if not 1 <= clusters <= len(features):
        raise UserError(f"{len(features):,} sentences cannot be put in {clusters:,} clusters")
    with warnings.catch_warnings():
        # fewer distinct rows than clusters: what a collapsed latent gives, and shown as such
        warnings.simplefilter("ignore")
        model = KMeans(clusters, n_init=RESTARTS, random_state=seed)  # type: ignore[arg-type]
        return model.fit_predict(features)


def _scores(
    times: np.ndarray, label: np.ndarray, cluster: np.ndarray
) -> tuple[float, float, float]:
    """The three, where label and cluster ``(C,)`` occur together so many times."""
    labels, clusters = _entropy(np.bincount(label, times)), _entropy(np.bincount(cluster, times))
    # rounding can take it past its bounds
    mutual = min(max(labels + clusters - _entropy(times), 0.0), labels, clusters)
    homogeneity = mutual / labels if labels else 1.0
    completeness = mutual / clusters if clusters else 1.0
    both = homogeneity + completeness
    return homogeneity, completeness, 2 * homogeneity * completeness / both if both else 0.0


def _entropy(times: np.ndarray) -> float:
    share = times[times > 0] / times.sum()
    return float(-(share * np.log(share)).sum())
