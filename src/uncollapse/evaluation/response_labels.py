"""Do responses do what people's did? Their labels, given by a classifier that learned from data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.evaluation.classifier import (
    BiLSTMClassifier,
    classifier_accuracy,
    predictions,
    train_baseline,
)
from uncollapse.evaluation.codes import NO_VARIABLE
from uncollapse.evaluation.generation import corpus_of_ids
from uncollapse.evaluation.labels import labelled_sentences
from uncollapse.evaluation.metric import Metric, no_figure
from uncollapse.evaluation.passes import Progress
from uncollapse.evaluation.remembered import fingerprint, once
from uncollapse.evaluation.responses.sets import ResponseSets, mean_over_contexts
from uncollapse.evaluation.written_responses import AnsweredContexts, WrittenResponses
from uncollapse.model import Model

ACCURACY = "response_label_accuracy"
DEFINITIONS = {
    ACCURACY: "share of responses that a classifier gives the label of the real response (of "
    "one of them, where there are several)",
    "action_homogeneity": "1 − H(label | action) / H(label): 1 if an action has one label only; "
    "the label that a classifier gives the response, the action that was drawn for it",
    "action_mutual_information": "I(action; label): the label that a classifier gives the "
    "response, the action that was drawn for it",
}
UNITS = dict(zip(DEFINITIONS, ("share", "share", "nats"), strict=True))
ONE_LABEL = "the classifier gives all responses the same label"
RESAMPLES = 200


def label_figures(
    model: Model,
    tokenizer: Tokenizer,
    train: Corpus,
    test: Corpus,
    contexts: AnsweredContexts,
    written: WrittenResponses,
    sets: ResponseSets,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """The figures of `DEFINITIONS`, of responses to contexts of the test corpus.

    Parameters
    ----------
    train, test : Corpus
        With labels in their first column. The classifier learns from ``train``, once for all
        models that share it.
    contexts, written, sets
        What was answered, how, and the same as words.

    Raises
    ------
    UserError
        If labels are missing, or too few to learn from.
    """
    known = labelled_sentences(test, "the test data")  # before minutes of training
    device = next(model.parameters()).device
    classifier, trained = once(
        "classifier",
        (fingerprint(train, tokenizer), seed, str(device)),
        lambda: train_baseline(
            len(tokenizer), train, what=ACCURACY, seed=seed, device=device, progress=progress
        ),
    )
    real = classifier_accuracy(classifier, test, trained=trained)
    how = (
        f"labels of column {next(iter(train.columns))!r}; the classifier gets {real.value:.1%} of "
        f"{real.samples:,} real test responses right: {real.estimator}"
    )
    gold = np.full(len(test), -1)
    gold[known.rows] = known.numbered_as(classifier.label_names).labels
    labels = _labels(classifier, written.tokens)  # (C, samples)
    answered = zip(labels, contexts.references, strict=True)
    shares = np.array([_share(own, gold[rows]) for own, rows in answered])
    found = {ACCURACY: mean_over_contexts(shares, "share", how, DEFINITIONS[ACCURACY], sets)}
    if written.codes is None:
        reason = f"none: {NO_VARIABLE}"
        return found | _dashes([name for name in DEFINITIONS if name not in found], reason)
    _, actions = np.unique(written.codes.reshape(labels.size, -1), axis=0, return_inverse=True)
    return found | _agreement(labels, actions.reshape(labels.shape), str(written.variable), how)


# --- inside -----------------------------------------------------------------------------------


def _labels(classifier: BiLSTMClassifier, responses: Sequence[Sequence[list[int]]]) -> np.ndarray:
    """The most probable class of every response, ``(C, samples)``."""
    flat = [tokens for group in responses for tokens in group]
    with torch.autocast(next(classifier.parameters()).device.type, enabled=False):
        return predictions(classifier, corpus_of_ids(flat)).reshape(len(responses), -1)


def _share(labels: np.ndarray, gold: np.ndarray) -> float:
    """Share of the labels ``(samples,)`` that a real response has; NaN if none has any."""
    known = gold[gold >= 0]
    return float(np.isin(labels, known).mean()) if len(known) else np.nan


def _agreement(
    labels: np.ndarray, actions: np.ndarray, variable: str, how: str
) -> dict[str, Metric]:
    """Homogeneity and mutual information of ``(C, samples)`` labels and actions, from 0 on."""
    names = [name for name in DEFINITIONS if name != ACCURACY]
    contexts, samples = labels.shape
    if (labels == labels[0, 0]).all():
        return _dashes(names, f"none: {ONE_LABEL}")
    classes = int(labels.max()) + 1
    cells = (actions * classes + labels).ravel()
    size = classes * (int(actions.max()) + 1)

    def values(times: np.ndarray) -> tuple[float, float]:
        """Of contexts that count so many times each."""
        counts = np.bincount(cells, np.repeat(times, samples), size).reshape(-1, classes)
        label = _entropy(counts.sum(0))
        mutual = max(label + _entropy(counts.sum(1)) - _entropy(counts.ravel()), 0.0)
        return (mutual / label if label else 1.0), mutual

    random = np.random.default_rng(0)
    draws = [random.integers(0, contexts, contexts) for _ in range(RESAMPLES)]
    resampled = [values(np.bincount(drawn, minlength=contexts)) for drawn in draws]
    # the responses to one context are alike: it is contexts that are drawn anew
    errors = np.std(resampled, 0, ddof=1) if contexts > 1 else (None, None)
    used = len(np.unique(actions))
    estimator = (
        f"joint code of {variable}, {used:,} in use; {labels.size:,} responses to {contexts:,} "
        f"contexts; bootstrap error over contexts; {how}"
    )
    return {
        name: Metric(
            value,
            UNITS[name],
            None if error is None else float(error),
            estimator,
            contexts,
            DEFINITIONS[name],
        )
        for name, value, error in zip(names, values(np.ones(contexts)), errors, strict=True)
    }


def _entropy(times: np.ndarray) -> float:
    share = times[times > 0] / times.sum()
    return float(-(share * np.log(share)).sum())


def _dashes(names: Sequence[str], reason: str) -> dict[str, Metric]:
    return {name: no_figure(UNITS[name], reason, DEFINITIONS[name]) for name in names}
