"""The supervised baseline: a biLSTM that learns from labels alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from uncollapse.config import RecurrentEncoderConfig
from uncollapse.data.batches import Batch, BucketedBatches, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.encoders import RecurrentEncoder
from uncollapse.errors import UserError
from uncollapse.evaluation.labels import (
    MOST_LABELS,
    held_out,
    labelled_sentences,
    several_classes,
)
from uncollapse.evaluation.metric import Metric, mean_over_sentences
from uncollapse.evaluation.passes import Progress, check_seed
from uncollapse.evaluation.probes import FEWEST_LABELS, HIDDEN, STOPPING, fit, mlp

SUPERVISED = ("bilstm_accuracy",)

EMBEDDING, STATE = 128, 128  # of the biLSTM: embeddings, and states in each direction
EVALUATION_BATCH = 128

BILSTM_ACCURACY = "share of test sentences whose label a biLSTM trained on labels alone gets right"


class BiLSTMClassifier(nn.Module):
    """One bidirectional LSTM layer; its two last states go to a three-layer MLP.

    Parameters
    ----------
    vocabulary_size : int
        V, specials included.
    label_names : list of str
        The classes, C of them.

    References
    ----------
    Long et al. 2019, "Preventing Posterior Collapse in Sequence VAEs with Pooling",
    appendix A. Sizes are not stated there.
    """

    def __init__(self, vocabulary_size: int, label_names: list[str]) -> None:
        super().__init__()
        config = RecurrentEncoderConfig(
            kind="lstm", embedding_dim=EMBEDDING, hidden_dim=STATE, bidirectional=True
        )
        self.label_names = label_names
        self.encoder = RecurrentEncoder(config, vocabulary_size)
        self.head = mlp(self.encoder.output_dim, len(label_names))

    def forward(self, batch: Batch) -> Tensor:
        """Logits ``(B, C)``."""
        return self.head(self.encoder(batch).summary)


def train_classifier(
    train: Corpus,
    validation: Corpus,
    vocabulary_size: int,
    *,
    labels: int | None = None,
    seed: int = 0,
    epochs: int = 30,
    patience: int = 5,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> BiLSTMClassifier:
    """Train the supervised baseline; keeps the epoch that is best on validation.

    Parameters
    ----------
    train, validation : Corpus
        With labels; sentences without one are left out.
    vocabulary_size : int
        V of the tokeniser that encoded them.
    labels : int, optional
        Train on so many labelled sentences, drawn at random; all if not given.
    seed : int
        Of the initialisation, the draw and the order of sentences.
    epochs, patience : int
        At most so many epochs, and so many after the best.
    batch_size : int
    device : torch.device or str
    progress : callable, optional
        Told of epochs.

    Raises
    ------
    UserError
        If labels are missing or too few, or those for training are of one class only.
    """
    check_seed(seed)
    known = several_classes(train, "the training data")
    if labels is not None:
        if not 0 < labels <= len(known):
            counts = f"labels = {labels:,}, but the training data has {len(known):,}"
            raise UserError(f"{counts} labelled sentences")
        known = known.sample(labels, seed)
    column = next(iter(train.columns))
    batches = BucketedBatches(train.select(np.sort(known.rows)), batch_size, seed=seed)
    checked = labelled_sentences(validation, "the validation data").numbered_as(known.names)
    checked_corpus = validation.select(checked.rows)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone, where weights are drawn
        classifier = BiLSTMClassifier(vocabulary_size, known.names)
    classifier.to(device)

    def epoch_batches(epoch: int) -> Iterator[tuple[Batch, Tensor]]:
        if progress is not None:
            progress("biLSTM epochs", epoch + 1, epochs)
        for batch in batches.epoch(epoch):
            moved = batch.to(device)
            yield moved, moved.labels[column]

    fit(
        classifier,
        epoch_batches,
        lambda: _logits(classifier, checked_corpus),
        torch.from_numpy(checked.labels),
        epochs=epochs,
        patience=patience,
    )
    return classifier


def classifier_accuracy(
    classifier: BiLSTMClassifier, corpus: Corpus, *, trained: str = "trained"
) -> Metric:
    """Share of labelled sentences whose class the classifier gets right.

    Parameters
    ----------
    classifier : BiLSTMClassifier
    corpus : Corpus
        With labels, whose classes are matched by name; sentences without one are left out.
    trained : str
        How it was trained, for the estimator.

    Raises
    ------
    UserError
        If there are none.
    """
    known = labelled_sentences(corpus, "the test data")
    gold = known.numbered_as(classifier.label_names).labels
    found = predictions(classifier, corpus.select(known.rows))
    estimator = (
        f"biLSTM of {EMBEDDING} + 2 × {STATE}, MLP of {HIDDEN} and {HIDDEN}; {trained}; "
        f"most frequent test class {known.most_frequent:.1%}"
    )
    return mean_over_sentences(found == gold, "share", estimator, BILSTM_ACCURACY)


def supervised_baseline(
    vocabulary_size: int,
    train: Corpus,
    test: Corpus,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Metric:
    """``bilstm_accuracy``: what labels alone give, to set beside a probe of z.

    Trains on the labelled sentences of ``train``, at most 10,000 drawn at random; one in ten
    of them decides when to stop.

    Raises
    ------
    UserError
        If labels are missing, or those for training are fewer than 20 or of one class only.
    """
    labelled_sentences(test, "the test data")  # before minutes of training
    classifier, trained = train_baseline(
        vocabulary_size, train, seed=seed, device=device, progress=progress
    )
    return classifier_accuracy(classifier, test, trained=trained)


def train_baseline(
    vocabulary_size: int,
    train: Corpus,
    *,
    what: str = SUPERVISED[0],
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> tuple[BiLSTMClassifier, str]:
    """The classifier of `supervised_baseline`, and how it was trained in words.

    ``what`` is the figure that an error says needs it; parameters and errors are those of
    `supervised_baseline`.
    """
    check_seed(seed)
    known = several_classes(train, "the training data")
    if len(known) < FEWEST_LABELS:
        needed = f"{what} needs {FEWEST_LABELS} labelled sentences"
        raise UserError(f"{needed}; the training data has {len(known):,}")
    known = known.sample(MOST_LABELS, seed)
    held = held_out(known.labels, STOPPING)
    own, checked = train.select(np.sort(known.rows[~held])), train.select(np.sort(known.rows[held]))
    classifier = train_classifier(
        own, checked, vocabulary_size, seed=seed, device=device, progress=progress
    )
    trained = (
        f"{len(known):,} labels (at most {MOST_LABELS:,}, at random), "
        f"one in {STOPPING} for early stopping; seed {seed}"
    )
    return classifier, trained


def predictions(classifier: BiLSTMClassifier, corpus: Corpus) -> np.ndarray:
    """The most probable class of every sentence, ``(N,)`` int64; a sentence may be empty."""
    return _logits(classifier, corpus).argmax(1).numpy()


@torch.no_grad()
def _logits(classifier: BiLSTMClassifier, corpus: Corpus) -> Tensor:
    """``(N, C)`` on the CPU, in the order of the corpus."""
    device = next(classifier.parameters()).device
    found = torch.empty(len(corpus), len(classifier.label_names))
    for batch in sequential_batches(corpus, EVALUATION_BATCH):
        found[batch.index] = classifier(batch.to(device)).cpu()
    return found
