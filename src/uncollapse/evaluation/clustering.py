"""How far an assignment of sentences to clusters or codes agrees with their labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uncollapse.errors import UserError
from uncollapse.evaluation.metric import Metric

CLUSTERING = {
    "homogeneity": "1 − H(label | cluster) / H(label): 1 if a cluster has one label only",
    "completeness": "1 − H(cluster | label) / H(cluster): 1 if a label is in one cluster only",
    "v_measure": "harmonic mean of homogeneity and completeness",
}
AGREEMENT = {
    "cluster_homogeneity": CLUSTERING["homogeneity"],
    "cluster_completeness": CLUSTERING["completeness"],
    "cluster_purity": "share of sentences with the most frequent label of their cluster",
    "cluster_ami": "mutual information of label and cluster, from 0 where it is what chance "
    "gives clusters of these sizes to 1 where they are the same",
}
RESAMPLES = 200
RESTARTS = 10  # of k-means


@dataclass(frozen=True)
class _Cells:
    """Which label and cluster occur together, C pairs, and how many times.

    Attributes
    ----------
    times, label, cluster : ndarray
        ``(C,)`` int.
    """

    times: np.ndarray
    label: np.ndarray
    cluster: np.ndarray

    def drawn(self, times: np.ndarray) -> _Cells:
        return _Cells(times, self.label, self.cluster)

    def entropies(self) -> tuple[float, float, float]:
        """H of the label, H of the cluster, and their mutual information, nats."""
        label = _entropy(np.bincount(self.label, self.times))
        cluster = _entropy(np.bincount(self.cluster, self.times))
        # rounding can take it past its bounds
        mutual = min(max(label + cluster - _entropy(self.times), 0.0), label, cluster)
        return label, cluster, mutual


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
    return _measured(_cells(labels, assignments), _v_measures, CLUSTERING, how, seed)


def agreement_metrics(
    labels: np.ndarray, assignments: np.ndarray, how: str, *, seed: int = 0
) -> dict[str, Metric]:
    """Homogeneity, completeness, purity and adjusted mutual information of codes and labels.

    Parameters, errors and the bootstrap are those of `clustering_metrics`. The first three
    grow with the number of clusters, to 1 where every sentence has its own; the adjusted one
    does not.

    References
    ----------
    Vinh et al. 2010, "Information Theoretic Measures for Clusterings Comparison" (AMI, relative
    to the mean of both entropies).
    """
    from sklearn.metrics.cluster import expected_mutual_information

    cells = _cells(labels, assignments)
    table = np.zeros((cells.label.max() + 1, cells.cluster.max() + 1), np.int64)
    table[cells.label, cells.cluster] = cells.times
    # it depends on the sizes of labels and clusters alone: resamples are near enough in these
    chance = float(expected_mutual_information(table, int(cells.times.sum())))

    def score(some: _Cells) -> tuple[float, ...]:
        homogeneity, completeness, _ = _v_measures(some)
        return homogeneity, completeness, _purity(some), _adjusted(some, chance)

    return _measured(cells, score, AGREEMENT, how, seed)


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


def _cells(labels: np.ndarray, assignments: np.ndarray) -> _Cells:
    known = labels >= 0
    if not known.any():
        raise UserError("no sentence has a label to compare the clusters with")
    pairs = np.stack([labels[known], assignments[known]], 1)
    cells, times = np.unique(pairs, axis=0, return_counts=True)  # (C, 2), (C,)
    _, label = np.unique(cells[:, 0], return_inverse=True)
    _, cluster = np.unique(cells[:, 1], return_inverse=True)
    return _Cells(times, label, cluster)


def _measured(
    cells: _Cells,
    score: Callable[[_Cells], Sequence[float]],
    definitions: Mapping[str, str],
    how: str,
    seed: int,
) -> dict[str, Metric]:
    """The scores by name, with their bootstrap errors over sentences."""
    count = int(cells.times.sum())
    values = score(cells)
    # drawing N sentences with replacement is drawing from their cells
    drawn = np.random.default_rng(seed).multinomial(count, cells.times / count, RESAMPLES)
    errors = np.std([score(cells.drawn(times)) for times in drawn], 0, ddof=1)
    used = int(cells.cluster.max()) + 1
    estimator = f"{how}; {used:,} in use; {count:,} sentences; bootstrap error"
    return {
        name: Metric(float(value), "share", float(error), estimator, count, definition)
        for (name, definition), value, error in zip(
            definitions.items(), values, errors, strict=True
        )
    }


def _v_measures(cells: _Cells) -> tuple[float, float, float]:
    """Homogeneity, completeness and their harmonic mean."""
    labels, clusters, mutual = cells.entropies()
    homogeneity = mutual / labels if labels else 1.0
    completeness = mutual / clusters if clusters else 1.0
    both = homogeneity + completeness
    return homogeneity, completeness, 2 * homogeneity * completeness / both if both else 0.0


def _purity(cells: _Cells) -> float:
    most = np.zeros(cells.cluster.max() + 1, np.int64)
    np.maximum.at(most, cells.cluster, cells.times)
    return float(most.sum() / cells.times.sum())


def _adjusted(cells: _Cells, chance: float) -> float:
    """AMI, given the mutual information that chance gives."""
    labels, clusters, mutual = cells.entropies()
    room = (labels + clusters) / 2 - chance
    # no room above chance: one cluster and one label, or all sentences apart in both
    return (mutual - chance) / room if room > 1e-12 else 1.0


def _entropy(times: np.ndarray) -> float:
    share = times[times > 0] / times.sum()
    return float(-(share * np.log(share)).sum())
