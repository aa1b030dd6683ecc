"""Figures and pictures of a model that is told of contexts: each sentence is in its own."""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dialogue_models import CHANGES, TURNS, dialogue_model
from helpers import small_recipe

from uncollapse import TextVAE
from uncollapse.benchmark.measuring import _standardised, _written
from uncollapse.benchmark.summary import TestSentences as Pictured
from uncollapse.data.batches import Batch, sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError
from uncollapse.evaluation import standard
from uncollapse.evaluation.aggregate import aggregate_kl
from uncollapse.evaluation.generation import generation_probes
from uncollapse.evaluation.interpolation import interpolate_pairs, rouge_metric
from uncollapse.evaluation.lagging import posterior_means
from uncollapse.evaluation.passes import posterior_pass
from uncollapse.evaluation.snapshot import take_snapshot
from uncollapse.model import Model
from uncollapse.report import run_figures
from uncollapse.strategies.restart import restart_decoder
from uncollapse.training.diagnosis import diagnose
from uncollapse.word_vectors import start_from_vectors

WORDS = " ".join(TURNS).split()
WIDTHS = [f"{part}.embedding_dim=5" for part in ("encoder", "decoder", "condition.encoder")]
FAR = {"z": {"dim": 1, "prior": {"kind": "conditional-gaussian"}}}


def dialogues(count: int = 12) -> list[dict[str, Any]]:
    draw = random.Random(0)
    return [
        {
            "turns": [
                {"speaker": "AB"[i % 2], "text": " ".join(draw.choices(WORDS, k=3 + i))}
                for i in range(4)
            ]
        }
        for _ in range(count)
    ]


def corpus_of(vae: TextVAE) -> Corpus:
    return vae._corpus(dialogues(), None)


def far_prior(vae: TextVAE) -> TextVAE:
    """p(z|context) far from N(0, I), and much narrower."""
    prior: Any = vae.model.latents["z"].prior  # type: ignore[union-attr]
    with torch.no_grad():
        output = prior.network[-1]
        output.weight.zero_()
        output.bias.copy_(torch.tensor([20.0, -4.0]).repeat_interleave(prior.dim))
    return vae


def test_the_lagging_plot_is_in_units_of_the_context_s_prior() -> None:
    vae = far_prior(dialogue_model("gaussian", latents=FAR))
    decoder: Any = vae.model.decoder
    with torch.no_grad():  # z says nothing: the true posterior is the prior
        decoder.to_state.weight.zero_()
        for name, weight in decoder.cell.named_parameters():
            if name.startswith("weight_ih"):
                weight[:, -1] = 0
    corpus = corpus_of(vae)
    found = posterior_means(vae.model, corpus)
    np.testing.assert_allclose(found.model, 0, atol=1e-6)
    passed = posterior_pass(vae.model, corpus)
    assert passed is not None
    np.testing.assert_allclose(found.approximate, passed.relative_means[:, 0], rtol=1e-5)


def test_pictures_show_means_where_the_prior_is_the_same_in_every_context() -> None:
    vae = far_prior(dialogue_model("gaussian"))
    corpus = corpus_of(vae)
    passed = posterior_pass(vae.model, corpus)
    assert passed is not None
    assert not torch.allclose(passed.means, passed.relative_means)
    np.testing.assert_allclose(take_snapshot(vae.model, corpus).means, passed.relative_means)
    np.testing.assert_allclose(_standardised(vae, corpus), passed.relative_means)


def test_the_picture_of_the_latent_space_is_of_sentences_in_their_contexts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vae = dialogue_model("gaussian")
    shown: list[np.ndarray] = []
    module = importlib.import_module("uncollapse.plots.latent_space")
    monkeypatch.setattr(module, "latent_space", lambda means, *_, **__: shown.append(means))
    run_figures._latent_space(run_figures.Request(vae, dialogues(), 0, 32))
    passed = posterior_pass(vae.model, corpus_of(vae))
    assert passed is not None
    np.testing.assert_allclose(shown[0], passed.relative_means)


def test_a_comparison_reconstructs_responses_in_their_contexts() -> None:
    vae = dialogue_model("attention")
    corpus = corpus_of(vae)
    rows = np.array([1, 6, 11, 15])
    sentences = Pictured.read(dialogues(), "text", None)
    assert [vae.tokenizer.decode(corpus.sentence(int(row))) for row in rows] == [
        sentences.texts[row] for row in rows
    ]
    ways, written = _written(vae, corpus.select(rows))
    assert written == [vae.reconstruct(dialogues(), max_length=100)[row] for row in rows]
    assert [way[0] for way in ways] == written[:2]
    assert [len(way) for way in ways] == [7, 7]


@pytest.mark.parametrize("kind", ["mixture", "codes"])
def test_codes_are_held_against_the_policy(kind: str) -> None:
    vae = dialogue_model(kind)
    corpus = corpus_of(vae)
    found = standard.evaluate(vae.model, corpus, vae.tokenizer, metrics=["kl_c"])["kl_c"]
    total = 0.0
    with torch.no_grad():
        for batch in sequential_batches(corpus, 8):
            for name, inference in vae.model.infer(batch).items():
                variable = vae.model.named_latents()[name].drawn_variable(name)
                log_q = vae.model.variables({name: inference})[variable]
                log_p: Any = inference.prior.log_weights
                total += float((log_q.exp() * (log_q - log_p)).sum())
    assert found.value == pytest.approx(total / len(corpus), rel=1e-5)
    assert "p(c|context)" in found.definition


def test_a_fitted_gaussian_has_relative_coordinates_too() -> None:
    """q(z|x, context) = p(z|context), by samples: nothing is known of the response."""
    latents = {
        "z": FAR["z"]
        | {"dim": 2, "posterior": {"kind": "implicit"}, "divergence": {"kind": "wasserstein"}}
    }
    vae = dialogue_model("gaussian", latents=latents, training={"select_on": "objective"})
    latent: Any = vae.model.latents["z"]  # type: ignore[union-attr]
    own, prior = latent.posterior.network, latent.prior.network
    with torch.no_grad():  # linear in context and noise alike
        own.weight.zero_()
        own.weight[:, -2:] = torch.eye(2)
        own.weight[:, vae.model.encoder.output_dim : -2] = prior[0].weight[:2]  # type: ignore[union-attr]
        own.bias.zero_()
        prior[0].weight *= 1e-3  # where tanh is linear
        prior[0].bias.zero_()
        prior[2].weight.zero_()
        prior[2].weight[:2, :2] = 1e3 * torch.eye(2)
        prior[2].bias.zero_()
    corpus = corpus_of(vae)
    passed = posterior_pass(vae.model, corpus)
    assert passed is not None
    assert float(passed.means.var(0).max()) > 0.2
    assert float(passed.relative_means.abs().max()) < 0.01
    found = standard.evaluate(vae.model, corpus, vae.tokenizer, metrics=["mi", "active_units"])
    assert found["active_units"].value == 0
    assert abs(found["mi"].value or 0) < 0.1
    assert all(standard.RELATIVE in metric.estimator for metric in found.values())
    gap = aggregate_kl(passed).value
    assert gap is not None
    assert -0.02 < gap < 0.3


@pytest.mark.parametrize("components", [1, 3])
def test_an_implicit_prior_s_mean_in_the_context_is_no_active_unit(components: int) -> None:
    """DialogWAE whose z knows the context and nothing of the response is collapsed."""
    latents = {
        "z": {
            "dim": 4,
            "posterior": {"kind": "implicit", "generator": {"hidden_dim": 6}},
            "prior": {"kind": "conditional-implicit", "hidden_dim": 6, "components": components},
            "divergence": {"kind": "wasserstein"},
        }
    }
    vae = dialogue_model("gaussian", latents=latents, training={"select_on": "objective"})
    latent: Any = vae.model.latents["z"]  # type: ignore[union-attr]
    own, prior = latent.posterior, latent.prior
    torch.manual_seed(0)
    with torch.no_grad():
        for part in [*prior.network, *prior.generator]:
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
        prior.network[0].weight *= 3
        output = prior.network[-1]
        output.weight *= 3
        output.weight[-4 * components :], output.bias[-4 * components :] = 0, -4
        means = torch.arange(4) + output.out_features - 8 * components
        for k in range(1, components):  # all components alike
            output.weight[means + 4 * k] = output.weight[means]
            output.bias[means + 4 * k] = output.bias[means]
        own.noise[1:-1].load_state_dict(prior.network[1:-1].state_dict())
        own.noise[0].weight.zero_()
        own.noise[0].weight[:, vae.model.encoder.output_dim :] = prior.network[0].weight  # type: ignore[union-attr]
        own.noise[0].bias.copy_(prior.network[0].bias)
        one = torch.cat([means, means + 4 * components])
        own.noise[-1].weight.copy_(output.weight[one])
        own.noise[-1].bias.copy_(output.bias[one])
        own.network.load_state_dict(prior.generator.state_dict())
    corpus = corpus_of(vae)
    assert corpus.contexts is not None
    corpus = corpus.select(np.flatnonzero(corpus.contexts.turns))
    passed = posterior_pass(vae.model, corpus)
    assert passed is not None
    assert float((passed.means.var(0) / prior.deviation.square()).min()) > 0.01
    np.testing.assert_allclose(passed.relative_means, 0, atol=1e-3)
    assert diagnose(vae.model, corpus).state == "collapsed"


def test_what_a_flow_s_z_owes_to_the_context_is_said() -> None:
    """Its units are counted from the prior's mean on; its mutual information is not."""
    latents = {"z": FAR["z"] | {"dim": 2, "posterior": {"kind": "flow"}}}
    vae = far_prior(dialogue_model("gaussian", latents=latents))
    found = standard.evaluate(
        vae.model, corpus_of(vae), vae.tokenizer, metrics=["mi", "active_units"]
    )
    assert standard.ABSOLUTE in found["mi"].estimator
    assert standard.RELATIVE in found["active_units"].estimator


def test_interpolation_says_in_which_context() -> None:
    vae = dialogue_model("gaussian")
    found = interpolate_pairs(vae.model, corpus_of(vae), vae.tokenizer, pairs=2)
    assert "in the context of the first" in rouge_metric(found, "1").estimator


def test_samples_say_that_their_context_is_empty() -> None:
    vae = dialogue_model("gaussian")
    corpus = corpus_of(vae)
    found = generation_probes(
        vae.model, vae.tokenizer, corpus, corpus, metrics=["distinct_1"], samples=4
    )
    assert "in an empty context" in found["distinct_1"].estimator


class OnDevice(torch.Tensor):
    """A tensor that NumPy cannot read, as if it were on another device."""

    def numpy(self, **_: Any) -> np.ndarray:
        raise TypeError("can't convert device tensor to numpy")

    def cpu(self, *_: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_figures_of_twr_read_rows_from_any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = dialogue_model("turns")
    corpus = corpus_of(vae)
    moved = Batch.to

    def to(batch: Batch, device: torch.device) -> Batch:
        there = moved(batch, device)
        there.index = there.index.as_subclass(OnDevice)
        return there

    names = ["nll_twr", "ppl_twr"]
    expected = standard.evaluate(vae.model, corpus, vae.tokenizer, metrics=names)
    monkeypatch.setattr(Batch, "to", to)
    assert standard.evaluate(vae.model, corpus, vae.tokenizer, metrics=names) == expected


@pytest.mark.parametrize(
    ("kind", "divergence"),
    [
        ("codes", {"kind": "aggregated-kl"}),
        ("mixture", {"kind": "dispersed", "mutual_information": True}),
    ],
)
def test_a_policy_that_nothing_trains_is_refused(kind: str, divergence: dict[str, Any]) -> None:
    ((name, latent),) = CHANGES[kind]["latents"].items()
    latents = {name: latent | {"divergence": divergence}}
    with pytest.raises(UserError, match="set objective"):
        dialogue_model(kind, latents=latents)
    dialogue_model(kind, latents=latents, objective={"policy": 1.0})


def test_tables_start_anew_from_word_vectors(tmp_path: Path) -> None:
    recipe = small_recipe("dgm-vae-dialogue", WIDTHS)
    width = recipe.decoder.embedding_dim
    path = tmp_path / "vectors.txt"
    path.write_text("".join(f"{word} {' '.join(['9'] * width)}\n" for word in set(WORDS)))
    tokenizer = Tokenizer.train(TURNS, "words", None)
    model = Model(recipe, len(tokenizer))
    count = start_from_vectors(model, tokenizer, str(path))
    with torch.no_grad():
        model.decoder.embedding.weight.zero_()  # it has learned something
    restart_decoder(model, recipe, 1, ("generation",))
    assert model.context is not None
    tables: Any = (model.decoder.embedding, model.context.encoder.embedding)  # type: ignore[union-attr]
    for table in tables:
        assert int((table.weight == 9).all(1).sum()) == count
