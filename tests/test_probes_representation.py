"""Probes of z against labels: known answers, and everything that must not happen."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from typing import cast

import numpy as np
import pytest
import torch
from helpers import small_recipe
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import homogeneity_completeness_v_measure
from torch import Tensor, nn

from uncollapse.data.batches import Batch, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import PAD, Tokenizer
from uncollapse.distributions.base import Distribution
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.distributions.point import Point
from uncollapse.distributions.product import Product
from uncollapse.errors import RunError, UserError
from uncollapse.evaluation.classifier import (
    BiLSTMClassifier,
    classifier_accuracy,
    supervised_baseline,
    train_classifier,
)
from uncollapse.evaluation.clustering import CLUSTERING, clustering_metrics, kmeans
from uncollapse.evaluation.features import posterior_features
from uncollapse.evaluation.labels import balanced_order, held_out
from uncollapse.evaluation.metric import DASH
from uncollapse.evaluation.probes import fit, linear_predictions, mlp_predictions
from uncollapse.evaluation.representation import REPRESENTATION, representation_probes
from uncollapse.model import Model

CLASSES = ["bad", "fair", "good"]
FILLER = ["one", "two", "three", "four", "five"]
FEW = ["accuracy_100", "probe_accuracy", *CLUSTERING]


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train([*CLASSES, *FILLER], "whitespace", None)


def reviews(count: int, seed: int = 0, missing: float = 0.0, classes: int = 3) -> Corpus:
    """Sentences that say their class somewhere among other words."""
    random = np.random.default_rng(seed)
    texts: list[str] = []
    labels: list[str | None] = []
    for _ in range(count):
        words = random.choice(FILLER, random.integers(1, 7)).tolist()
        name = CLASSES[random.integers(classes)]
        words.insert(random.integers(len(words) + 1), name)
        texts.append(" ".join(words))
        labels.append(None if random.random() < missing else name)
    return labelled(texts, labels, CLASSES)


def labelled(
    texts: list[str], labels: Sequence[str | None], classes: list[str] | None = None
) -> Corpus:
    known = None if classes is None else {"label": classes}
    return Corpus.from_texts(texts, tokenizer(), labels={"label": labels}, classes=known)


class Reader(nn.Module):
    """In place of a model: z is what ``read`` makes of a batch."""

    def __init__(self, kind: str, dim: int = 3) -> None:
        super().__init__()
        self.kind = kind
        self.latent_dim = dim
        self.weight = nn.Parameter(torch.zeros(1))
        self.read = 0  # sentences

    def posterior(self, batch: Batch) -> Distribution | None:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.read += batch.size
        return {
            "class": lambda: DiagonalGaussian(self.said(batch), torch.zeros(batch.size, 3)),
            "variance": lambda: DiagonalGaussian(torch.ones(batch.size, 3), self.said(batch)),
            "noise": lambda: DiagonalGaussian(self.noise(batch), self.noise(batch)),
            "constant": lambda: DiagonalGaussian(*torch.full((2, batch.size, 3), 0.1)),
            "point": lambda: Point(self.said(batch)),
            "parts": lambda: Product([Point(self.said(batch)), Point(self.said(batch))]),
            "broken": lambda: Point(self.said(batch) / 0),
        }[self.kind]()

    def said(self, batch: Batch) -> Tensor:
        """Which class the sentence names, (B, 3)."""
        ids = torch.tensor([tokenizer().encode(name)[0] for name in CLASSES])
        return (batch.tokens[:, :, None] == ids).any(1).float()

    def noise(self, batch: Batch) -> Tensor:
        """Numbers that depend on every word but the one that names the class, (B, 3)."""
        ids = [tokenizer().encode(name)[0] for name in CLASSES]
        words = [[word for word in row if word not in (*ids, PAD)] for row in batch.tokens.tolist()]
        seeds = [[len(row), *row] for row in words]
        rows = [np.random.default_rng(seed).standard_normal(3) for seed in seeds]
        return torch.from_numpy(np.stack(rows)).float()


def reader(kind: str, dim: int = 3) -> Model:
    return cast(Model, Reader(kind, dim))


# --- known answers --------------------------------------------------------------------------


def test_separate_classes_are_found_from_a_hundred_labels() -> None:
    found = representation_probes(reader("class"), reviews(150), reviews(120, 1), metrics=FEW)
    assert list(found) == FEW
    for name, metric in found.items():
        assert metric.value == pytest.approx(1.0), name
        assert metric.standard_error == pytest.approx(0.0, abs=1e-12)
        assert metric.unit == "share"
        assert metric.samples == 120


def test_the_probe_sees_the_variance_and_the_linear_classifier_does_not() -> None:
    names = ["accuracy_100", "probe_accuracy"]
    found = representation_probes(reader("variance"), reviews(120), reviews(200, 1), metrics=names)
    assert cast(float, found["accuracy_100"].value) < 0.5
    assert found["probe_accuracy"].value == 1.0
    assert "Var_q" in found["probe_accuracy"].estimator


def test_without_a_variance_the_probe_reads_the_mean() -> None:
    for kind, dim in (("point", 3), ("parts", 6)):
        found = representation_probes(
            reader(kind, dim), reviews(90), reviews(50, 1), metrics=["probe_accuracy"]
        )
        assert found["probe_accuracy"].value == 1.0
        assert "on E_q z;" in found["probe_accuracy"].estimator


def test_noise_is_worth_a_guess() -> None:
    found = representation_probes(reader("noise"), reviews(1200), reviews(600, 1), metrics=FEW)
    chance, error = 1 / 3, (2 / 9 / 600) ** 0.5
    for name in ("accuracy_100", "probe_accuracy"):
        assert abs(cast(float, found[name].value) - chance) < 4 * error
    assert 0 <= cast(float, found["homogeneity"].value) < 0.02


def test_a_collapsed_latent_is_worth_a_guess_and_breaks_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        test = reviews(200, 1)
        found = representation_probes(reader("constant"), reviews(300), test, metrics=FEW)
    assert capfd.readouterr().err == ""
    shares = np.bincount(cast(np.ndarray, test.labels)) / len(test)
    for name in ("accuracy_100", "probe_accuracy"):
        assert shares.min() - 1e-9 <= cast(float, found[name].value) <= shares.max() + 1e-9
    assert found["homogeneity"].value == 0
    assert found["completeness"].value == 1
    assert found["v_measure"].value == 0
    assert found["homogeneity"].standard_error == 0
    assert "1 in use" in found["homogeneity"].estimator


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-9, 9)), min_size=2, max_size=40))
def test_clustering_figures_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, assignments = np.array(pairs).T
    expected = homogeneity_completeness_v_measure(labels, assignments)
    found = clustering_metrics(labels, assignments, "codes")
    assert tuple(found) == tuple(CLUSTERING)
    values = [metric.value for metric in found.values()]
    np.testing.assert_allclose(np.array(values, float), expected, atol=1e-9)


def test_clustering_error_is_that_of_fresh_samples() -> None:
    random = np.random.default_rng(0)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        labels = random.integers(0, 2, 500)
        return labels, np.where(random.random(500) < 0.8, labels, 1 - labels)

    fresh = [clustering_metrics(*draw(), "codes")["v_measure"].value for _ in range(60)]
    error = clustering_metrics(*draw(), "codes")["v_measure"].standard_error
    assert error == pytest.approx(np.std(np.array(fresh, float)), rel=0.4)


def test_the_mlp_learns_what_no_line_can_tell() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (900, 2))
    labels = (points[:, 0] * points[:, 1] > 0).astype(np.int64)
    split = points[:600], labels[:600], points[600:]
    assert np.mean(linear_predictions(*split) == labels[600:]) < 0.65
    assert np.mean(mlp_predictions(*split) == labels[600:]) > 0.95


def test_scale_of_a_feature_does_not_matter_and_rounding_is_no_feature() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 200)
    features = random.standard_normal((200, 2)) + labels[:, None]
    test = random.standard_normal((100, 2))
    expected = linear_predictions(features, labels, test)
    scaled = linear_predictions(features * 1e-5, labels, test * 1e-5)
    np.testing.assert_array_equal(scaled, expected)
    noisy = np.hstack([features, 1 + 1e-8 * labels[:, None]])
    more = np.hstack([test, np.full((100, 1), 1.0)])
    np.testing.assert_array_equal(linear_predictions(noisy, labels, more), expected)


# --- draws ----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 9))
def test_draws_are_balanced_as_far_as_possible(classes: list[int], seed: int) -> None:
    labels = np.array(classes)
    order = balanced_order(labels, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(labels)))
    total = np.bincount(labels)
    for size in range(1, len(labels) + 1):
        taken = np.bincount(labels[order[:size]], minlength=len(total))
        # a class may lag only if it is used up
        lagging = taken < taken.max() - 1
        np.testing.assert_array_equal(taken[lagging], total[lagging])


def test_held_out_sentences_are_of_every_class_and_leave_a_lone_one() -> None:
    labels = np.array([0] + [1] * 50 + [2] * 30 + [3])
    held = held_out(labels, 5)
    np.testing.assert_array_equal(np.bincount(labels[held], minlength=4), [0, 10, 6, 0])


def test_a_lone_sentence_of_a_class_can_be_drawn() -> None:
    labels = ["bad"] * 150 + ["good"]
    texts = [f"{name} one" for name in labels]
    train = labelled(texts, labels)
    found = representation_probes(reader("class"), train, reviews(30, 1), metrics=FEW[:2])
    assert all(metric.value is not None for metric in found.values())


# --- what is left out, and what is refused --------------------------------------------------


def test_sentences_without_a_label_play_no_part() -> None:
    train, test = reviews(250, missing=0.4), reviews(150, 1, missing=0.4)
    model = reader("class")
    found = representation_probes(model, train, test, metrics=FEW)
    assert train.labels is not None
    assert test.labels is not None
    labelled = int((test.labels >= 0).sum())
    assert {metric.samples for metric in found.values()} == {labelled}
    assert f"{int((train.labels >= 0).sum())} labels" in found["probe_accuracy"].estimator
    assert all(metric.value == pytest.approx(1) for metric in found.values())
    assert cast(Reader, model).read == labelled + int((train.labels >= 0).sum())


def test_classes_are_matched_by_name() -> None:
    test = reviews(100, 1)
    assert test.labels is not None
    names = [CLASSES[label] for label in test.labels]
    texts = [tokenizer().decode(test.sentence(i)) for i in range(len(test))]
    turned = labelled(texts, names, CLASSES[::-1])
    found = representation_probes(reader("class"), reviews(120), turned, metrics=FEW)
    assert all(metric.value == pytest.approx(1) for metric in found.values())
    unknown = [name.replace("fair", "new") for name in names]
    strange = labelled(texts, unknown)
    found = representation_probes(reader("class"), reviews(120), strange, metrics=FEW[:2])
    right = 1 - names.count("fair") / 100
    assert [metric.value for metric in found.values()] == pytest.approx([right, right])


def test_too_few_labels_are_a_dash_among_all_and_an_error_by_name() -> None:
    train, test = reviews(321), reviews(50, 1)
    found = representation_probes(reader("class"), train, test)
    assert tuple(found) == REPRESENTATION
    assert found["accuracy_100"].value == 1
    assert found["accuracy_10k"].format() == DASH
    assert "only 321 labelled" in found["accuracy_10k"].estimator
    with pytest.raises(UserError, match=r"accuracy_10k needs 10,000 labelled sentences; .* 321$"):
        representation_probes(reader("class"), train, test, metrics=["accuracy_10k"])
    with pytest.raises(UserError, match="bilstm_accuracy needs 20 labelled sentences"):
        supervised_baseline(len(tokenizer()), reviews(19), test)
    with pytest.raises(UserError, match="labels = 99, but the training data has 19"):
        train_classifier(reviews(19), test, len(tokenizer()), labels=99)


def test_all_labels_there_are_make_one_draw() -> None:
    found = representation_probes(
        reader("noise"), reviews(100), reviews(80, 1), metrics=["accuracy_100"]
    )["accuracy_100"]
    assert "1 balanced draws" in found.estimator
    assert found.standard_error == pytest.approx((2 / 9 / 80) ** 0.5, rel=0.3)


def test_clusters_need_no_training_sentences() -> None:
    found = representation_probes(reader("class"), None, reviews(60), metrics=list(CLUSTERING))
    assert found["v_measure"].value == pytest.approx(1)
    assert representation_probes(reader("class"), None, reviews(60))["accuracy_100"].value is None
    with pytest.raises(UserError, match="accuracy_1k needs labelled training sentences"):
        representation_probes(reader("class"), None, reviews(60), metrics=["accuracy_1k"])


def test_number_of_clusters() -> None:
    model, test = reader("class"), reviews(60)
    found = representation_probes(model, None, test, metrics=["homogeneity"], clusters=1)
    assert found["homogeneity"].value == 0
    assert "k = 1," in found["homogeneity"].estimator
    with pytest.raises(UserError, match="60 sentences cannot be put in 61 clusters"):
        kmeans(np.zeros((60, 2)), 61)


def test_labels_that_are_missing_are_named() -> None:
    plain = Corpus.from_texts(["one two", "two"], tokenizer())
    blank = labelled(["one", "two"], [None, None])
    single = reviews(200, classes=1)
    good = reviews(200)
    for train, test, message in (
        (plain, good, "the training data has no labels.*--label-column"),
        (good, plain, "the test data has no labels.*--label-column"),
        (blank, good, "no sentence of the training data has a label"),
        (single, good, "training data has labels of one class only, 'bad'"),
        (good, single, "test data has labels of one class only, 'bad'"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            representation_probes(reader("class"), train, test)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="training data has no labels"):
        supervised_baseline(len(tokenizer()), plain, good)


def test_wrong_requests_are_refused() -> None:
    train, test = reviews(120), reviews(20, 1)
    with pytest.raises(UserError, match=r"unknown metric 'accuracy_1000'; did you mean"):
        representation_probes(reader("class"), train, test, metrics=["accuracy_1000"])
    with pytest.raises(UserError, match="seeds must be at least 1"):
        representation_probes(reader("class"), train, test, seeds=0)
    with pytest.raises(UserError, match="negative"):
        representation_probes(reader("class"), train, test, seed=-1)
    with pytest.raises(RunError, match="not finite for 20 of 20"):
        representation_probes(reader("broken"), train, test)


def test_a_language_model_has_dashes() -> None:
    found = representation_probes(reader("class", dim=0), reviews(30), reviews(30))
    assert tuple(found) == REPRESENTATION
    assert {metric.value for metric in found.values()} == {None}


# --- nothing else changes -------------------------------------------------------------------


def test_figures_depend_on_the_seed_alone_and_names_do_not_matter() -> None:
    train, test = reviews(300), reviews(100, 1)
    state = torch.random.get_rng_state(), np.random.get_state(legacy=False)
    first = representation_probes(reader("noise"), train, test)
    assert torch.equal(torch.random.get_rng_state(), state[0])
    np.testing.assert_equal(np.random.get_state(legacy=False), state[1])
    torch.manual_seed(5)
    again = representation_probes(reader("noise"), train, test)
    assert again == first
    for name in ("accuracy_100", "v_measure", "probe_accuracy"):
        alone = representation_probes(reader("noise"), train, test, metrics=[name])
        assert alone == {name: first[name]}
    other = representation_probes(reader("noise"), train, test, seed=1)
    assert other["accuracy_100"] != first["accuracy_100"]


def test_the_random_state_of_a_gpu_stays_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    labels = np.arange(40) % 2
    mlp_predictions(np.eye(40), labels, np.eye(40))
    train_classifier(reviews(80), reviews(30, 2), len(tokenizer()), epochs=1)
    assert not seeded


def test_the_encoder_learns_nothing() -> None:
    """Batch norm above all: in training mode, its running statistics would drift."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(small_recipe("bn-vae"), len(tokenizer())).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert any("running" in name for name in before)
    found = representation_probes(model, reviews(200), reviews(60, 1), metrics=FEW)
    assert all(metric.value is not None for metric in found.values())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(part.training for part in model.modules())


def test_features_stand_in_the_order_of_the_corpus() -> None:
    corpus = reviews(300)
    found = posterior_features(reader("class"), corpus)
    np.testing.assert_array_equal(found.mean.argmax(1), corpus.labels)
    assert found.variance is not None
    np.testing.assert_array_equal(found.variance, 1)


# --- the supervised baseline ----------------------------------------------------------------


def test_bilstm_learns_from_labels() -> None:
    train, test = reviews(240, missing=0.2), reviews(120, 1, missing=0.2)
    reports: list[tuple[str, int, int]] = []
    found = supervised_baseline(
        len(tokenizer()), train, test, progress=lambda *report: reports.append(report)
    )
    assert cast(float, found.value) > 0.97
    assert found.samples == int((cast(np.ndarray, test.labels) >= 0).sum())
    assert f"{int((cast(np.ndarray, train.labels) >= 0).sum())} labels" in found.estimator
    assert reports[0] == ("biLSTM epochs", 1, 30)


def test_bilstm_depends_on_the_seed_alone() -> None:
    def train(seed: int) -> BiLSTMClassifier:
        return train_classifier(
            reviews(80), reviews(30, 2), len(tokenizer()), labels=40, seed=seed, epochs=2
        )

    state = torch.random.get_rng_state()
    first = train(0)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(7)
    same = train(0).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in first.state_dict().items())
    other = train(1).state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_the_best_epoch_is_kept_and_patience_ends_training() -> None:
    """From the third epoch on, training teaches the opposite of what validation asks."""
    network = nn.Linear(1, 2)
    seen: list[int] = []

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        seen.append(epoch)
        for _ in range(300):
            yield torch.ones(4, 1), torch.full((4,), int(epoch > 1))

    # class 2 is one that training lacks: never right, and no obstacle
    labels = torch.tensor([0, 0, 2])
    fit(network, batches, lambda: network(torch.ones(3, 1)).detach(), labels, epochs=20, patience=3)
    assert seen == [0, 1, 2, 3, 4]
    assert not network.training
    assert network(torch.ones(1, 1)).argmax() == 0


def test_bilstm_classes_are_matched_by_name() -> None:
    train, other = reviews(150), reviews(60, 2)
    names = [CLASSES[label] for label in cast(np.ndarray, other.labels)]
    texts = [tokenizer().decode(other.sentence(i)) for i in range(len(other))]
    unknown = [name.replace("fair", "new") for name in names]
    validation = labelled(texts, unknown)
    found = train_classifier(train, validation, len(tokenizer()), epochs=8)
    assert classifier_accuracy(found, other).value == 1
    right = 1 - names.count("fair") / 60
    assert classifier_accuracy(found, validation).value == pytest.approx(right)


def test_bilstm_does_not_see_padding() -> None:
    torch.manual_seed(0)
    classifier = BiLSTMClassifier(len(tokenizer()), CLASSES)
    alone = reviews(1)
    together = reviews(20)
    batch = next(sequential_batches(together, 20))
    place = batch.index.tolist().index(0)
    with torch.no_grad():
        expected = classifier(next(sequential_batches(alone, 1)))[0]
        torch.testing.assert_close(classifier(batch)[place], expected)
