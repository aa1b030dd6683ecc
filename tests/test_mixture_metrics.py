"""Figures of codes and mixtures: known answers, and how they hang together."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from helpers import VOCABULARY, small_model
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.mixtures import CODES, MIXTURES, ORDER, code_metrics, mixture_metrics
from uncollapse.evaluation.passes import PosteriorPass, posterior_pass
from uncollapse.evaluation.standard import STANDARD, evaluate, metric_names
from uncollapse.model import Model

SUPERVISED = "objective.supervision=[{column: mood, variable: z.component, index: 1, weight: 1.0}]"
GROUPS = "latents.z.groups=3"
EVERY_MIXTURE = ["gm-vae", "dgm-vae-mi", "dcm-vae", "dbm-vae", "gamma-mixture-vae"]


@cache
def tokenizer() -> Tokenizer:
    words = [f"w{number}" for number in range(VOCABULARY - len(SPECIAL_TOKENS))]
    return Tokenizer.train(words, "whitespace", None)


def corpus(count: int = 40, seed: int = 0, moods: list[str | None] | None = None) -> Corpus:
    random = np.random.default_rng(seed)
    texts = [
        " ".join(f"w{word}" for word in random.integers(0, 26, random.integers(1, 9)))
        for _ in range(count)
    ]
    labels = None if moods is None else {"mood": moods}
    classes = {"mood": ["calm", "glad", "sad"]}
    return Corpus.from_texts(texts, tokenizer(), labels=labels, classes=classes)


def measured(name: str, *overrides: str, count: int = 40) -> tuple[Model, PosteriorPass, dict]:
    model = small_model(name, overrides)
    sentences = corpus(count)
    found = posterior_pass(model, sentences)
    assert found is not None
    return model, found, mixture_metrics(model, sentences, found)


def value(metric: Metric) -> float:
    assert metric.value is not None
    return metric.value


def logs(probabilities: list) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_codes_by_hand() -> None:
    # two sentences sure of different values, of the only variable: ln 2 of ln 4
    found = code_metrics({"c": logs([[[1, 0, 0, 0]], [[0, 1, 0, 0]]])})
    assert value(found["kl_c"]) == pytest.approx(math.log(4))
    assert value(found["mi_c"]) == pytest.approx(math.log(2))
    assert found["mi_c"].standard_error == pytest.approx(0, abs=1e-12)
    # all sentences say the same, whatever it is: nothing is told
    same = logs([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]] * 5)
    assert value(code_metrics({"c": same})["mi_c"]) == pytest.approx(0, abs=1e-12)
    # uniform: nothing is charged either
    flat = code_metrics({"c": torch.zeros(6, 2, 3)})
    assert value(flat["kl_c"]) == pytest.approx(0, abs=1e-12)
    assert value(flat["mi_c"]) == pytest.approx(0, abs=1e-12)


def test_several_variables_add_up_and_are_counted() -> None:
    random = torch.Generator().manual_seed(0)
    a = torch.randn(30, 2, 4, generator=random).log_softmax(-1)
    b = torch.randn(30, 3, 5, generator=random).log_softmax(-1)
    both, one, other = (
        code_metrics({"a": a, "b": b}),
        code_metrics({"a": a}),
        code_metrics({"b": b}),
    )
    for name in ("kl_c", "mi_c"):
        assert value(both[name]) == pytest.approx(value(one[name]) + value(other[name]))
    assert value(both["mi_c_mean"]) == pytest.approx(value(both["mi_c"]) / 5)
    assert "N = 30" in both["mi_c"].estimator
    assert f"3 of b, at most ln min(K, N) = {math.log(5):.2f} each" in both["mi_c"].estimator


@given(st.integers(1, 30), st.integers(1, 4), st.integers(2, 6), st.floats(0.01, 20))
def test_kl_is_that_of_the_aggregate_plus_the_information(
    count: int, groups: int, size: int, sharpness: float
) -> None:
    random = torch.Generator().manual_seed(count)
    log_q = (torch.randn(count, groups, size, generator=random) * sharpness).log_softmax(-1)
    found = code_metrics({"c": log_q})
    mean = log_q.double().log_softmax(-1).exp().mean(0)
    aggregate = (torch.special.xlogy(mean, mean) + mean * math.log(size)).sum()
    assert value(found["kl_c"]) == pytest.approx(float(aggregate) + value(found["mi_c"]), abs=1e-9)
    assert -1e-12 <= value(found["mi_c_mean"]) <= math.log(min(size, count)) + 1e-9


def test_error_of_the_information_is_that_over_draws_of_sentences() -> None:
    random = torch.Generator().manual_seed(1)
    everybody = (2 * torch.randn(4000, 1, 4, generator=random)).log_softmax(-1)
    draws = [
        code_metrics({"c": everybody[torch.randint(4000, (200,), generator=random)]})["mi_c"]
        for _ in range(200)
    ]
    spread = np.std([value(metric) for metric in draws], ddof=1)
    told = np.mean([metric.standard_error for metric in draws])
    assert told == pytest.approx(spread, rel=0.2)


def test_names_are_those_that_a_model_has() -> None:
    mixture = metric_names(small_model("gm-vae", [GROUPS]))
    assert mixture == (*STANDARD, *ORDER)
    assert set(ORDER) == {*CODES, *MIXTURES}
    semi = metric_names(small_model("semi-vae"))
    assert semi == (*STANDARD, "kl_c", "mi_c", "mi_c_mean")
    assert metric_names(small_model("vae")) == STANDARD
    assert metric_names(small_model("gm-vae", [GROUPS, SUPERVISED]))[-1] == "accuracy_mood"


@pytest.mark.parametrize("name", EVERY_MIXTURE)
def test_parts_bound_the_whole(name: str) -> None:
    model, found, metrics = measured(name)
    assert model.variable_sizes()["z.component"][0] == found.variables["z.component"].shape[1]
    whole = metrics["kl_z_mixture"]
    parts = sum(value(metrics[part]) for part in ("kl_c", "kl_z_average", "dispersion"))
    assert parts >= value(whole) - 4 * (whole.standard_error or 0)
    for part in ("kl_z_average", "dispersion", "variance"):
        assert value(metrics[part]) > 0


def test_figures_are_sums_of_one_sentence_each() -> None:
    model, found, metrics = measured("gm-vae", GROUPS)
    prior = model.get_submodule("latents.z.prior")
    totals = np.zeros(4)
    for row in range(len(found.means)):
        weights = found.variables["z.component"][row : row + 1]
        with torch.no_grad():
            parts = prior.decompose(found.latents["z"][row : row + 1], weights)
            variance = prior.weighted_variance(weights)
        sums = (parts.component, parts.average, parts.dispersion, variance)
        totals += [float(part.sum()) for part in sums]
    names = ("kl_c", "kl_z_average", "dispersion", "variance")
    expected = dict(zip(names, totals / len(found.means), strict=True))
    for name in names:
        assert value(metrics[name]) == pytest.approx(expected[name], rel=1e-4)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, whole = measured("gm-vae", GROUPS)
    monkeypatch.setattr("uncollapse.evaluation.mixtures.CHUNK", 7)
    _, _, cut = measured("gm-vae", GROUPS)
    for name, metric in whole.items():
        assert cut[name].value == pytest.approx(metric.value, rel=1e-6)


def test_equal_components_leave_nothing_to_average() -> None:
    model = small_model("gm-vae", [GROUPS])
    prior = model.get_submodule("latents.z.prior")
    with torch.no_grad():
        prior.free.copy_(prior.free[:, :, :1].expand_as(prior.free).clone())
    sentences = corpus()
    found = posterior_pass(model, sentences)
    assert found is not None
    metrics = mixture_metrics(model, sentences, found)
    assert value(metrics["dispersion"]) == pytest.approx(0, abs=1e-9)
    assert value(metrics["variance"]) == pytest.approx(0, abs=1e-9)
    whole = metrics["kl_z_mixture"]
    gap = value(whole) - value(metrics["kl_z_average"])
    assert abs(gap) < 4 * (whole.standard_error or 0) + 1e-6


def test_the_true_kl_is_that_of_the_standard_figures() -> None:
    model = small_model("gm-vae", [GROUPS])
    found = evaluate(model, corpus(), tokenizer(), metrics=["kl", "kl_z_mixture", "mi_c"])
    assert list(found) == ["kl", "kl_z_mixture", "mi_c"]
    assert value(found["kl"]) == pytest.approx(value(found["kl_z_mixture"]))
    assert found["kl"].samples == found["kl_z_mixture"].samples


def test_two_latents_share_the_kl() -> None:
    model = small_model("semi-vae", ["latents.c.groups=3"])
    found = evaluate(model, corpus(), tokenizer(), metrics=["kl", "kl_c"])
    passed = posterior_pass(model, corpus())
    assert passed is not None
    assert passed.kl is not None
    gaussian = float(passed.kl[:, :4].sum(1).mean())  # z comes first
    assert value(found["kl"]) == pytest.approx(gaussian + value(found["kl_c"]), rel=1e-5)


def test_a_mixture_beside_another_latent_has_its_own_kl() -> None:
    extra = "latents.a={groups: 1, dim: 3, posterior: {kind: gaussian}}"
    model = small_model("gm-vae", [GROUPS, extra])
    sentences = corpus()
    found = posterior_pass(model, sentences)
    assert found is not None
    assert found.kl is not None
    metrics = mixture_metrics(model, sentences, found)
    place = 0 if next(iter(model.latents)) == "z" else 3
    assert found.kl.shape[1] == 4
    own = found.kl[:, place].double().mean()
    assert value(metrics["kl_z_mixture"]) == pytest.approx(float(own))


def test_accuracy_by_hand() -> None:
    model = small_model("gm-vae", [GROUPS, SUPERVISED])
    names = ["calm", "glad", "sad"]
    found = posterior_pass(model, corpus())
    assert found is not None
    guesses = found.variables["z.component"][:, 1].argmax(-1).tolist()
    # what it says where that is a class, and for the first five something else
    moods: list[str | None] = [names[guess] if guess < 3 else None for guess in guesses]
    known = [row for row, mood in enumerate(moods) if mood is not None]
    wrong = known[:5]
    for row in wrong:
        moods[row] = names[(guesses[row] + 1) % 3]
    labelled = corpus(moods=moods)
    metric = evaluate(model, labelled, tokenizer(), metrics=["accuracy_mood"])["accuracy_mood"]
    share = 1 - len(wrong) / len(known)
    assert value(metric) == pytest.approx(share)
    assert metric.samples == len(known)
    binomial = math.sqrt(share * (1 - share) / (len(known) - 1))
    assert metric.standard_error == pytest.approx(binomial)


def test_accuracy_without_labels_is_a_dash() -> None:
    model = small_model("gm-vae", [GROUPS, SUPERVISED])
    for sentences, reason in (
        (corpus(), "none: the data has no column 'mood'"),
        (corpus(moods=[None] * 40), "none: no sentence has a label in 'mood'"),
    ):
        metric = evaluate(model, sentences, tokenizer(), metrics=["accuracy_mood"])
        assert metric["accuracy_mood"].value is None
        assert metric["accuracy_mood"].estimator == reason


def test_neighbours_and_batches_do_not_matter() -> None:
    model = small_model("dcm-vae")
    names = [name for name in metric_names(model) if name in ORDER]
    one = evaluate(model, corpus(), tokenizer(), metrics=names, batch_size=1)
    many = evaluate(model, corpus(), tokenizer(), metrics=names, batch_size=40)
    for name in names:
        assert value(one[name]) == pytest.approx(value(many[name]), rel=1e-4)


def test_one_sentence() -> None:
    _, _, metrics = measured("gm-vae", GROUPS, count=1)
    assert value(metrics["mi_c"]) == pytest.approx(0, abs=1e-12)
    for metric in metrics.values():
        assert metric.value is not None
        assert metric.standard_error is None
