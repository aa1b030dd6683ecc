"""Mode collapse: toy mixtures whose state is known, and small models that collapse or do not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from dialogue_models import dialogue_model
from helpers import random_sentences, small_model
from torch import Tensor

from uncollapse.data.batches import Batch
from uncollapse.data.corpus import Corpus
from uncollapse.data.grammar import assistant_grammar
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.distributions.families import Categorical, Gaussian
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.errors import UserError
from uncollapse.evaluation.mode_collapse import (
    NEAR,
    code_use,
    component_distances,
    distinct_components,
    information_kept,
    mixture_evidence,
)
from uncollapse.latents import Latent
from uncollapse.latents.priors import Mixture
from uncollapse.model import Model
from uncollapse.objectives import Objective
from uncollapse.recipes import load_recipe
from uncollapse.training.advice import is_informed, kind_of
from uncollapse.training.diagnosis import diagnose
from uncollapse.training.fit import fit


def gaussian_mixture(centers: list[list[float]]) -> Mixture:
    """M mixtures of unit Gaussians of one number, by their means ``(M, K)``."""
    means = torch.tensor(centers)
    prior = Mixture(Gaussian(), *means[:, None].shape)
    with torch.no_grad():
        prior.free.copy_(torch.stack([means, torch.zeros_like(means)], -1)[:, None])
    return prior


def codes(values: list[int], size: int, sure: float = 20.0) -> Tensor:
    """log q(c|x) ``(N, 1, K)`` that is all but certain of the given values."""
    rows = torch.nn.functional.one_hot(torch.tensor(values), size)
    return (sure * rows.float()).log_softmax(-1)[:, None]


def gaussians(means: Tensor) -> DiagonalGaussian:
    """q(z|x) of means ``(N, 1)`` and a small variance."""
    return DiagonalGaussian(means, torch.full_like(means, -4.0))


SIZES = ("embedding_dim", "hidden_dim")
FOUR = [0, 1, 2, 3] * 50
APART = [[-6.0, -2.0, 2.0, 6.0]]


def test_distances_are_those_of_gaussians() -> None:
    found = component_distances(gaussian_mixture([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]]))
    gaps = torch.tensor([[0.0, 1.0, 3.0], [1.0, 0.0, 2.0], [3.0, 2.0, 0.0]])
    torch.testing.assert_close(found[0], gaps.double().square() / 2)
    assert found[1].abs().max() < 1e-12


def test_distances_add_up_over_units_and_are_symmetric_in_every_family() -> None:
    torch.manual_seed(0)
    prior = Mixture(Categorical(4), 2, 3, 5)
    found = component_distances(prior)
    assert torch.equal(found, found.transpose(1, 2))
    natural = prior.natural[1].detach()  # (U, K, P)
    each = [prior.family.kl(a[0], a[3]) + prior.family.kl(a[3], a[0]) for a in natural.unbind(0)]
    assert float(found[1, 0, 3]) == pytest.approx(float(torch.stack(each).sum()) / 2)


@pytest.mark.parametrize(
    ("centers", "shares", "expected"),
    [
        ([0.0, 0.0, 0.0, 0.0], [0.25] * 4, 1.0),
        ([-6.0, -2.0, 2.0, 6.0], [0.25] * 4, 4.0),
        ([-6.0, -6.1, 6.0, 6.1], [0.25] * 4, 2.0),  # two pairs
        ([0.0, 0.0, 0.0, 9.0], [0.3, 0.3, 0.3, 0.1], math.exp(0.32508)),  # H(0.1)
        ([0.0, 0.0, 0.0, 9.0], [1 / 3, 1 / 3, 1 / 3, 0.0], 1.0),  # what nobody uses is not pulled
        ([-6.0, -2.0, 2.0, 6.0], [1.0, 0.0, 0.0, 0.0], 1.0),
        ([0.0, 0.99], [0.5, 0.5], 1.0),  # one deviation is the limit
        ([0.0, 1.01], [0.5, 0.5], 2.0),
    ],
)
def test_near_components_count_as_one(centers, shares, expected) -> None:
    distances = component_distances(gaussian_mixture([centers]))
    found = distinct_components(distances, torch.tensor([shares], dtype=torch.float64))
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_limit_is_one_deviation_of_a_unit_gaussian() -> None:
    assert float(component_distances(gaussian_mixture([[0.0, 1.0]]))[0, 0, 1]) == NEAR


def test_use_of_codes_by_hand() -> None:
    sure = code_use(codes(FOUR, 4))
    assert sure.mutual_information == pytest.approx(math.log(4), abs=1e-5)
    assert sure.usage == pytest.approx(4)
    one = code_use(codes([2] * 10, 4))
    assert one.mutual_information == pytest.approx(0, abs=1e-6)
    assert one.usage == pytest.approx(1, abs=1e-4)
    blank = code_use(torch.full((10, 3, 4), -math.log(4)))
    assert blank.mutual_information == pytest.approx(0, abs=1e-6)
    assert blank.usage == pytest.approx(4)
    # H of the mean (3/4, 1/4); half of the sentences are certain, half are not
    rows = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]]).log()
    mean = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert code_use(rows).mutual_information == pytest.approx(mean - math.log(2) / 2)


def test_z_that_goes_with_its_component_keeps_the_information() -> None:
    prior, log_weights = gaussian_mixture(APART), codes(FOUR, 4)
    at_home = gaussians(torch.tensor(APART[0])[FOUR][:, None])
    assert information_kept(prior, at_home, log_weights) > 0.8
    elsewhere = gaussians(torch.randn(200, 1, generator=torch.Generator().manual_seed(0)) * 4)
    assert information_kept(prior, elsewhere, log_weights) < 0.1
    # wherever z is: of components that are one, nothing can be read
    assert information_kept(gaussian_mixture([[0.0] * 4]), at_home, log_weights) < 1e-6
    assert information_kept(prior, at_home, codes([1] * 200, 4)) <= 1.0


def test_few_sentences_for_many_components_keep_no_information_by_chance() -> None:
    prior = gaussian_mixture([[10.0 * k for k in range(30)]])
    random = torch.Generator().manual_seed(0)
    values = torch.randint(30, (400,), generator=random)
    log_weights = codes(values.tolist(), 30)
    elsewhere = 10.0 * torch.randint(30, (400, 1), generator=random)
    assert information_kept(prior, gaussians(elsewhere), log_weights) < 0.05
    assert information_kept(prior, gaussians(10.0 * values[:, None]), log_weights) > 0.99


def test_evidence_of_a_mixture_in_numbers() -> None:
    found = mixture_evidence(
        gaussian_mixture(APART), gaussians(torch.zeros(200, 1)), codes(FOUR, 4, sure=0.0)
    )
    assert (found.nearest, found.median, found.farthest) == pytest.approx((8.0, 8.0, 72.0))
    assert found.distinct == pytest.approx(4.0)
    assert found.variance == pytest.approx(20.0)  # of the means: precisions are equal
    assert found.dispersion == pytest.approx(10.0)  # half of it, at unit variance


# --- whole models --------------------------------------------------------------------------


def corpus_of_random(count: int = 60) -> Corpus:
    texts = [" ".join(f"w{word}" for word in row) for row in random_sentences(count)]
    words = sorted({word for text in texts for word in text.split()})
    assert len(words) <= 26
    return Corpus.from_texts(texts, Tokenizer.train(texts, "whitespace", None))


def set_components(model: Model, spread: float) -> None:
    """Put the components of z at equal distances from each other on every axis."""
    prior = latent_of(model, "z").prior
    assert isinstance(prior, Mixture)
    with torch.no_grad():
        prior.free.zero_()
        prior.free[..., 0] = spread * torch.arange(prior.components)


def scale_posterior(model: Model, name: str, factor: float) -> None:
    """Make what the posterior reads from a sentence larger, or nothing."""
    with torch.no_grad():
        for parameter in latent_of(model, name).posterior.parameters():
            parameter.mul_(factor)


def latent_of(model: Model, name: str) -> Latent:
    latent = model.latents[name]
    assert isinstance(latent, Latent)
    return latent


def test_diagnosis_of_fabricated_models() -> None:
    corpus = corpus_of_random()
    model = small_model("gm-vae", ["latents.z.groups=2", "latents.z.prior.components=3"])
    head = latent_of(model, "z").classifier
    assert isinstance(head, torch.nn.Sequential)

    last = head[-1]
    assert isinstance(last, torch.nn.Linear)

    set_components(model, 0.0)
    melted = diagnose(model, corpus)
    assert melted.state == "mode collapse"
    assert "1.0 of them distinct" in melted.evidence
    assert "latents.z.divergence.beta" in melted.advice

    set_components(model, 3.0)
    with torch.no_grad():
        last.weight.mul_(20.0)
        last.bias.zero_()
    assert diagnose(model, corpus).state in ("alive", "z ignores c")

    with torch.no_grad():
        last.weight.zero_()
    ignored = diagnose(model, corpus)
    assert ignored.state == "codes ignored"
    assert "3.0 of 3 values in use" in ignored.evidence
    assert "mutual_information: true" in ignored.advice
    with torch.no_grad():
        last.bias.copy_(torch.tensor([30.0, 0.0, 0.0] * 2))
    alone = diagnose(model, corpus)
    assert alone.state == "codes ignored"
    assert "1.0 of 3 values in use" in alone.evidence


def test_z_that_ignores_its_component_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = corpus_of_random(200)
    model = small_model("gm-vae", ["latents.z.groups=1", "latents.z.prior.components=2"])
    set_components(model, 6.0)
    infer = model.infer

    def fabricated(batch: Batch, weight: float = 1.0) -> Any:
        found = infer(batch, weight)
        log_weights = codes([row % 2 for row in batch.index.tolist()], 2)
        # z at a component, but of no particular sentence
        home = (batch.index // 2 % 2).float()[:, None] * 6.0
        shape = found["z"].posterior.mean.shape
        found["z"].posterior = gaussians(home.expand(shape) + 0.0)
        found["z"].log_weights = log_weights
        return found

    monkeypatch.setattr(model, "infer", fabricated)
    found = diagnose(model, corpus)
    assert found.state == "z ignores c"
    assert "z keeps 0% of the mutual information" in found.evidence


def test_several_latents_are_judged_one_by_one() -> None:
    corpus = corpus_of_random()
    model = small_model("semi-vae", ["latents.c.groups=3", "latents.c.dim=1"])
    scale_posterior(model, "z", 5.0)
    scale_posterior(model, "c", 20.0)
    both = diagnose(model, corpus)
    assert both.state == "alive"
    assert "latent z: KL" in both.evidence
    assert "latent c: KL" in both.evidence
    scale_posterior(model, "c", 0.0)
    found = diagnose(model, corpus)
    assert found.state == "collapsed"
    assert found.evidence.startswith("latent c: KL ")
    assert "latent z" not in found.evidence
    assert "di-vae" in found.advice


def test_a_dead_autoencoder_is_not_told_of_a_kl() -> None:
    corpus = corpus_of_random()
    model = small_model("autoencoder")
    scale_posterior(model, "z", 5.0)
    assert diagnose(model, corpus).state == "alive"
    scale_posterior(model, "z", 0.0)
    found = diagnose(model, corpus)
    assert found.state == "collapsed"
    assert "KL" not in found.advice
    assert "word_dropout" in found.advice


def test_kinds_of_latents() -> None:
    kinds = {"vae": "continuous", "autoencoder": "uncharged", "gm-vae": "mixture"}
    assert {name: kind_of(latent_of(small_model(name), "z")) for name in kinds} == kinds
    assert kind_of(latent_of(small_model("discrete-vae"), "c")) == "discrete"
    assert kind_of(latent_of(small_model("cm-vae"), "z")) == "mixture"
    assert kind_of(latent_of(dialogue_model("gaussian").model, "z")) == "conditional"
    assert kind_of(latent_of(dialogue_model("mixture").model, "z")) == "mixture"
    informed = {"gm-vae": False, "gm-vae-mi": True, "dgm-vae": False, "dgm-vae-mi": True}
    assert {name: is_informed(latent_of(small_model(name), "z")) for name in informed} == informed


def test_one_sentence_is_too_few_and_a_language_model_has_no_latent() -> None:
    corpus = corpus_of_random()
    with pytest.raises(UserError, match="at least two sentences"):
        diagnose(small_model("gm-vae"), corpus.head(1))
    assert diagnose(small_model("gru-lm"), corpus).state == "no latent"


def test_batch_size_does_not_change_the_verdict() -> None:
    corpus = corpus_of_random()
    model = small_model("dgm-vae", ["latents.z.groups=2"])
    assert diagnose(model, corpus, batch_size=7).state == diagnose(model, corpus).state


def trained(name: str, folder: Path) -> tuple[Model, list[dict[str, Any]], Corpus]:
    """A mixture of two times four components on sentences of the grammar."""
    texts = [sample.text for sample in assistant_grammar().sample(2_300, 0)]
    tokenizer = Tokenizer.train(texts, "whitespace", None)
    train, held_out = (Corpus.from_texts(t, tokenizer) for t in (texts[:2_000], texts[2_000:]))
    sizes = [f"{part}.{size}=24" for part in ("encoder", "decoder") for size in SIZES]
    settings = [
        "encoder.bidirectional=false",
        "decoder.word_dropout=0.7",
        "latents.z.groups=2",
        "latents.z.readout=max",
        "latents.z.prior.components=4",
        "objective.samples=1",
        "objective.weight={kind: linear, start: 0.0, epochs: 2}",
        "training.learning_rate=0.02",
        "training.max_epochs=3",
        "training.batch_size=32",
        "training.plateau=null",
        "training.select_on=objective",
    ]
    recipe = load_recipe(name, [*sizes, *settings])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Model(recipe, len(tokenizer))
    history = fit(
        model,
        Objective(recipe.objective),
        recipe,
        train,
        held_out,
        folder,
        seed=0,
        device="cpu",
        resume=False,
        show_progress=False,
    )
    return model, history.rows, held_out


@pytest.mark.slow
def test_a_mixture_melts_and_a_dispersed_one_does_not(tmp_path: Path) -> None:
    melted, rows, held_out = trained("gm-vae", tmp_path / "gm")
    found = diagnose(melted, held_out)
    assert found.state == "mode collapse"
    assert rows[-1]["validation/components/z"] < 1.5
    variances = [row["validation/variance/z"] for row in rows]
    assert variances[-1] < 0.1

    apart, rows, held_out = trained("dgm-vae", tmp_path / "dgm")
    assert diagnose(apart, held_out).state == "alive"
    assert rows[-1]["validation/components/z"] > 1.5
    assert rows[-1]["validation/variance/z"] > 10 * variances[-1]
    assert rows[-1]["validation/mi_c/z.component"] > 0.05
