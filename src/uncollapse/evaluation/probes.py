"""Classifiers of fixed vectors: logistic regression and a small MLP."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uncollapse.evaluation.labels import held_out
from uncollapse.tuning import tuned_process

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of scikit-learn: most regularised first
CHOOSING = 5  # one in so many labels chooses among them
ITERATIONS = 1_000
ROUNDING = 1e-6  # spread of an f32 feature, relative to its size, below which it is constant

HIDDEN = 64  # of the MLP
LEARNING_RATE = 1e-3
CLIP_NORM = 5.0
STOPPING = 10  # one in so many labels decides when to stop
FEWEST_LABELS = 2 * STOPPING
EPOCHS, PATIENCE, BATCH = 100, 10, 64


def linear_predictions(features: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fit a logistic regression to all labels; its L2 strength is chosen on a fifth of them.

    Parameters
    ----------
    features : ndarray
        ``(n, D)``; they are standardised.
    labels : ndarray
        ``(n,)`` int, of two classes or more.
    test : ndarray
        ``(N, D)``.

    Returns
    -------
    ndarray
        ``(N,)``: the predicted classes.
    """
    features, test = _standardise(features, test)
    held = held_out(labels, CHOOSING)
    own, own_labels = features[~held], labels[~held]
    right = [
        np.count_nonzero(_logistic(own, own_labels, features[held], strength) == labels[held])
        for strength in STRENGTHS
    ]
    # among equals the first, which is the most regularised
    return _logistic(features, labels, test, STRENGTHS[int(np.argmax(right))])


def mlp_predictions(
    features: np.ndarray, labels: np.ndarray, test: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """Train an MLP with early stopping on a tenth of the labels.

    Parameters
    ----------
    features : ndarray
        ``(n, D)``; they are standardised.
    labels : ndarray
        ``(n,)`` int, at least ``FEWEST_LABELS``.
    test : ndarray
        ``(N, D)``.
    seed : int
        Of the initialisation and the order of batches.

    Returns
    -------
    ndarray
        ``(N,)``: the predicted classes.
    """
    held = held_out(labels, STOPPING)
    features, test = _standardise(features, test)
    inputs, known = torch.from_numpy(features).float(), torch.from_numpy(labels)
    own, checked = np.flatnonzero(~held), torch.from_numpy(np.flatnonzero(held))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone, where weights are drawn
        network = mlp(inputs.shape[1], int(labels.max()) + 1)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = np.random.default_rng((seed, epoch)).permutation(own)
        for rows in torch.from_numpy(order).split(BATCH):
            yield inputs[rows], known[rows]

    def logits() -> Tensor:
        with torch.no_grad():
            return network(inputs[checked])

    fit(network, batches, logits, known[checked], epochs=EPOCHS, patience=PATIENCE)
    with torch.no_grad():
        return network(torch.from_numpy(test).float()).argmax(1).numpy()


def mlp(features: int, classes: int) -> nn.Sequential:
    """Three linear layers with ReLU between them, from features to logits."""
    return nn.Sequential(
        nn.Linear(features, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, classes),
    )


def fit(
    network: nn.Module,
    batches: Callable[[int], Iterable[tuple[Any, Tensor]]],
    logits: Callable[[], Tensor],
    labels: Tensor,
    *,
    epochs: int,
    patience: int,
) -> None:
    """Minimise the cross-entropy with Adam; leave the network at its best epoch, in evaluation.

    Parameters
    ----------
    network : Module
        From an input to logits ``(B, C)``.
    batches : callable
        From the number of an epoch to its inputs and labels ``(B,)``.
    logits : callable
        Gives those of the validation sentences, ``(N, C)``, on the CPU.
    labels : Tensor
        ``(N,)``, on the CPU: theirs; C is a class that training lacks.
    epochs, patience : int
        At most so many epochs, and so many after the best: the one of highest accuracy and,
        among equals, of lowest cross-entropy.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    best, best_epoch, weights = (-1.0, 0.0), 0, copy.deepcopy(network.state_dict())
    with tuned_process():
        for epoch in range(epochs):
            network.train()
            for inputs, targets in batches(epoch):
                optimizer.zero_grad()
                F.cross_entropy(network(inputs), targets).backward()
                nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
                optimizer.step()
            network.eval()
            found = logits()
            right = float((found.argmax(1) == labels).double().mean())
            loss = float(F.cross_entropy(found, labels, ignore_index=found.shape[1]))
            if (right, -loss) > best:
                best, best_epoch = (right, -loss), epoch
                weights = copy.deepcopy(network.state_dict())
            elif epoch - best_epoch >= patience:
                break
    network.load_state_dict(weights)


def _logistic(
    features: np.ndarray, labels: np.ndarray, test: np.ndarray, strength: float
) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        # a fit cut short still predicts, and the accuracy tells how well
        warnings.simplefilter("ignore")
        return model.fit(features, labels).predict(test)


def _standardise(features: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean 0 and variance 1 of every column of ``(n, D)``; ``test`` in the same units."""
    mean, spread = features.mean(0), features.std(0)
    # a constant would be divided by nothing, and rounding is no feature
    spread[spread <= ROUNDING * np.abs(features).max(0)] = np.inf
    return (features - mean) / spread, (test - mean) / spread
