"""Every packaged recipe: what it says, and that its system computes, learns, saves and writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SENTENCES, VOCABULARY, make_batch, random_sentences, small_model, small_recipe
from safetensors.torch import load_model, save_model

from uncollapse.config import ConstantScheduleConfig, RecurrentEncoderConfig
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import PAD
from uncollapse.decoders.generation import generate
from uncollapse.errors import UserError
from uncollapse.latents import Inference
from uncollapse.latents.priors import Prior
from uncollapse.model import Model
from uncollapse.objectives import Objective, Progress
from uncollapse.recipes import (
    explain_recipe,
    load_recipe,
    recipe_names,
    recipe_schema,
    recipe_source,
    recipe_to_yaml,
)
from uncollapse.terms import Terms

# fmt: off
CONTRACT = [
    "lstm-lm", "gru-lm", "autoencoder", "vae", "rnn-vae", "gru-vae", "word-dropout-vae", "beta-vae",
    "cyclical-vae", "free-bits-vae", "free-bits-total-vae", "delta-vae", "bn-vae",
    "mean-pool-vae", "max-pool-vae", "abs-pool-vae",
    "twr-vae", "twr-vae-mean", "twr-vae-sum", "twr-vae-rnn", "twr-vae-gru",
    "twr-vae-last25", "twr-vae-last50", "twr-vae-last75",
    "vmf-vae", "skip-vae", "cnn-vae", "sa-vae", "lagging-vae", "wae-rnf", "ivae", "ivae-mi",
    "pretrained-free-bits-vae", "pretrained-cyclical-vae", "pretrained-delta-vae",
    "pretrained-vmf-vae", "pretrained-bn-vae", "transformer-vae", "transformer-bn-vae",
]
MIXTURES = [
    "gm-vae", "gm-vae-mi", "gm-vae-aggressive", "gm-vae-beta", "gm-vae-free-bits",
    "dgm-vae", "dgm-vae-mi", "dbm-vae", "gamma-mixture-vae", "cm-vae", "dcm-vae",
    "di-vae", "discrete-vae", "discrete-autoencoder", "supervised-dvae", "semi-vae", "semi-vae-mi",
]
# fmt: on

every_recipe = pytest.mark.parametrize("name", recipe_names())
with_a_recurrent_encoder = [
    name for name in recipe_names() if isinstance(load_recipe(name).encoder, RecurrentEncoderConfig)
]


def test_the_promised_recipes_are_there() -> None:
    assert len(CONTRACT) == len(set(CONTRACT)) == 39
    assert set(CONTRACT) <= set(recipe_names())


@every_recipe
def test_recipe_is_short_and_says_what_it_is(name: str) -> None:
    source = recipe_source(name)
    assert len(source.splitlines()) <= 40
    recipe = load_recipe(name)
    assert recipe.name == name
    for key in ("summary:", "source:"):  # its own, not the one of the recipe it extends
        assert source.count(f"\n{key}") + source.startswith(key) == 1
    assert recipe.summary
    assert recipe.source


@every_recipe
def test_recipe_survives_writing_and_reading(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_to_yaml(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


def test_recipes_of_mixtures_and_codes_are_there() -> None:
    assert set(MIXTURES) <= set(recipe_names())
    assert not set(MIXTURES) & set(CONTRACT)


def test_summaries_are_different() -> None:
    recipes = [load_recipe(name) for name in recipe_names()]
    assert len({recipe.summary for recipe in recipes}) == len(recipes)


def test_source_of_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'twr-vae'"):
        recipe_source("twr-vee")


# --- padding ------------------------------------------------------------------------------


def terms_at_fixed_noise(model: Model, batch, rows: list[int] | None = None) -> Terms:
    """All terms, with the same draws for the same sentence, whatever the posterior."""

    def draw(inference: Inference) -> torch.Tensor:
        if inference.z is None:
            q = inference.posterior
            streams = [np.random.default_rng(row) for row in rows or range(batch.size)]
            inference.z = q.draw(streams, 1)[:, 0].to(inference.features.dtype)
            inference.log_prob = q.log_prob(inference.z) if q.has_density else None
        return inference.z

    def sample(prior: Prior, n: int, _generator=None) -> torch.Tensor:
        return torch.zeros(n, prior.dim)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Inference, "draw", draw)
        for latent in model.latents.values():
            patch.setattr(type(latent.prior), "sample", sample)
            patch.setattr(type(latent.prior), "rsample", sample)
        return model(batch)


def flatten(terms: Terms) -> dict[str, torch.Tensor]:
    found = {"reconstruction": terms.reconstruction, "tokens": terms.tokens}
    found |= {f"divergence {name}": value for name, value in terms.divergence.items()}
    found |= {f"kl {name}": value for name, value in terms.kl.items()}
    found |= {f"variable {name}": value for name, value in terms.variables.items()}
    found |= {f"supervision {name}": value for name, value in terms.supervision.items()}
    found |= terms.extra
    for name, parts in terms.mixtures.items():
        found |= {f"{part} {name}": value for part, value in vars(parts).items()}
    return found | {f"mean {name}": q.mean for name, q in terms.posteriors.items()}


def batch_of(sentences: list[list[int]], first: int = 0, width: int = 0) -> Batch:
    """With labels of every column that a packaged recipe learns from, and with contexts."""
    rows = range(first, first + len(sentences))
    labels = {"emotion": [row % 4 - 1 for row in rows], "act": [row % 2 for row in rows]}
    turns = random_sentences(60, seed=5)
    contexts = [turns[3 * row : 3 * row + (row + 2) % 4] for row in rows]
    return make_batch(sentences, width=width, labels=labels, contexts=contexts)


@pytest.mark.parametrize(
    ("name", "directions"),
    [(name, 1) for name in recipe_names()] + [(name, 2) for name in with_a_recurrent_encoder],
)
def test_no_term_knows_the_neighbours_length(name: str, directions: int) -> None:
    model = small_model(name, ["encoder.bidirectional=true"] if directions == 2 else [])
    with torch.no_grad():
        for table in model.embeddings():  # a real vector at <pad>: it must not matter
            table.weight[PAD] = 3.0
    together = flatten(terms_at_fixed_noise(model, batch_of(SENTENCES, width=14)))
    of_the_batch = {
        f"divergence {key}"
        for key, latent in load_recipe(name).latents.items()
        if latent.divergence.kind in ("mmd", "aggregated-kl")
        or getattr(latent.divergence, "mutual_information", False)
    }
    for row, sentence in enumerate(SENTENCES):
        alone = flatten(terms_at_fixed_noise(model, batch_of([sentence], row), [row]))
        assert alone.keys() == together.keys()
        for term, value in alone.items():
            if term in of_the_batch:
                continue
            torch.testing.assert_close(
                together[term][row], value[0], atol=1e-5, rtol=1e-5, msg=f"{term} of {sentence}"
            )


@pytest.mark.parametrize("steps", ["last", "every"])
def test_batch_norm_in_training_does_not_see_padding(steps: str) -> None:
    found = []
    for width in (0, 20):
        model = small_model("bn-vae", [f"latents.z.readout={steps}"]).train()
        batch = make_batch(SENTENCES, width=width)
        q = model.posterior(batch)
        norm = model.latents["z"].posterior.batch_norm
        assert q is not None
        found.append((q.mean, norm.running_mean.clone(), norm.running_variance.clone()))
    for narrow, wide in zip(*found, strict=True):
        torch.testing.assert_close(wide, narrow, atol=1e-5, rtol=1e-5)


# --- the matrix ---------------------------------------------------------------------------


def loss_of(model: Model, objective: Objective, batch, progress: Progress) -> torch.Tensor:
    """The objective, and what the critic lowers, if there is one."""
    torch.manual_seed(7)
    loss = objective(model(batch), batch.total, progress).total
    if model.discriminator is not None:
        others = batch_of(random_sentences(batch.size, seed=1))
        condition = model.read(batch)
        vector = None if condition is None else condition.vector
        loss = loss + model.discriminator.loss(batch, others, vector).mean()
    if model.critic_settings() is None:
        return loss
    return loss + model.critic_loss(model.infer(batch)).mean()


@every_recipe
def test_system_learns_saves_and_writes(name: str, tmp_path: Path) -> None:
    recipe = small_recipe(name)
    model = small_model(name).train()
    objective = Objective(recipe.objective)
    batch = batch_of(random_sentences(8))
    kinds = {latent.posterior.kind for latent in recipe.latents.values()}
    assert model.has_likelihood == ("point" not in kinds)
    assert model.has_density == all(latent.has_density for latent in recipe.latents.values())

    # a step of gradient descent moves every parameter, of every player, and lowers the loss
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    progress = Progress(500, 100)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    loss = loss_of(model, objective, batch, progress)
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert moved == set(before)
    players = model.players()
    assert {"generation"} <= players.keys() <= {"inference", "generation", "prior", "critic"}
    assert sorted(map(id, model.parameters())) == sorted(
        id(parameter) for parameters in players.values() for parameter in parameters
    )
    if recipe.decoder.word_dropout == 0:
        assert loss_of(model, objective, batch, progress) < loss

    # a round trip through a file moves nothing
    save_model(model, str(tmp_path / "model.safetensors"))
    torch.manual_seed(99)
    copy = Model(recipe, VOCABULARY)
    load_model(copy, str(tmp_path / "model.safetensors"))
    model.eval(), copy.eval()
    for one, other in zip(
        flatten(terms_at_fixed_noise(model, batch)).values(),
        flatten(terms_at_fixed_noise(copy, batch)).values(),
        strict=True,
    ):
        assert torch.equal(one, other)

    # sentences from the prior, and the batch's own again
    generator = torch.Generator().manual_seed(0)
    z = model.sample_prior(5, generator)
    written = generate(
        model.decoder, z, rows=5, method="sample", top_p=0.9, generator=generator, max_length=6
    )
    assert len(written) == 5
    assert all(0 <= word < VOCABULARY for row in written for word in row)
    posterior = model.posterior(batch)
    assert (posterior is None) == (not recipe.latents)
    if posterior is not None:
        assert z is not None
        assert z.shape == (5, model.latent_dim)
        if all(latent.prior.has_density for latent in model.named_latents().values()):
            assert model.log_prior(z).shape == (5,)
        assert len(generate(model.decoder, posterior.mean, max_length=6)) == 8


@every_recipe
def test_mixed_precision_is_finite_and_close(name: str) -> None:
    model, objective = small_model(name), Objective(small_recipe(name).objective)
    # codes pass no gradient on, but what stands for them in training does
    model.train(any(latent.is_discrete for latent in model.latents.values()))
    batch = batch_of(random_sentences(8))
    exact = loss_of(model, objective, batch, Progress(500, 100))
    exact.backward()
    gradients = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = loss_of(model, objective, batch, Progress(500, 100))
    rounded.backward()
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.01, atol=0)
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    a = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    b = torch.cat([gradients[key].flatten() for key, _ in model.named_parameters()])
    assert torch.cosine_similarity(a, b, dim=0) > 0.99


@every_recipe
def test_densities_are_computed_in_full_precision(name: str) -> None:
    model = small_model(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model(batch_of(SENTENCES))
    for term, value in flatten(terms).items():
        if term != "tokens":
            assert value.dtype == torch.float32, term


def test_two_latents_stand_side_by_side() -> None:
    overrides = ["latents.c={dim: 3, readout: mean}", "latents.z.readout=max"]
    model = small_model("vae", overrides)
    batch = make_batch(SENTENCES)
    terms = model(batch)
    assert model.latent_dim == 7
    assert {name: tuple(kl.shape) for name, kl in terms.kl.items()} == {"z": (4, 4), "c": (4, 3)}
    total = sum(kl.sum(1) for kl in terms.kl.values())
    torch.testing.assert_close(terms.elbo, terms.reconstruction - total)
    posterior = model.posterior(batch)
    assert posterior is not None
    kl = sum(terms.posteriors[name].kl_standard().sum(1) for name in ("z", "c"))
    torch.testing.assert_close(kl, total)
    z = torch.randn(5, 2, 7)
    standard = torch.distributions.Normal(0, 1).log_prob(z).sum(-1)
    torch.testing.assert_close(model.log_prior(z), standard)


def test_language_model_is_a_model_without_latents() -> None:
    model = small_model("lstm-lm")
    terms = model(make_batch(SENTENCES))
    assert model.encoder is None
    assert model.sample_prior(3) is None
    assert model.posterior(make_batch(SENTENCES)) is None
    assert terms.kl == terms.divergence == terms.posteriors == {}
    assert torch.equal(terms.elbo, terms.reconstruction)
    assert terms.tokens.tolist() == [len(sentence) + 1 for sentence in SENTENCES]


def test_autoencoder_adds_no_noise_and_reports_no_kl() -> None:
    model = small_model("autoencoder").train()
    model.decoder.eval()
    batch = make_batch(SENTENCES)
    first, second = model(batch), model(batch)
    assert torch.equal(first.reconstruction, second.reconstruction)
    assert first.kl == first.divergence == {}


def test_another_kind_drops_the_keys_of_the_old_one() -> None:
    recipe = load_recipe("vae", ["objective.weight.kind=constant", "decoder.kind=gru"])
    assert recipe.objective.weight == ConstantScheduleConfig()
    assert (recipe.decoder.kind, recipe.decoder.hidden_dim) == ("gru", 256)


def test_settings_of_another_corpus() -> None:
    for name in ("vae@yahoo", "bn-vae@yahoo"):
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.encoder is not None
        assert (recipe.encoder.hidden_dim, recipe.decoder.embedding_dim) == (1024, 512)
    assert load_recipe("bn-vae@yahoo").encoder.init_scale is None  # the recipe's own stays
    assert load_recipe("lstm-lm@snli").encoder is None
    with pytest.raises(UserError, match="did you mean 'yahoo'"):
        load_recipe("vae@yaho")
    with pytest.raises(UserError, match="same settings on every corpus"):
        load_recipe("twr-vae@yahoo")


def test_published_figures_are_the_recipe_s_own() -> None:
    assert load_recipe("bn-vae").published["yahoo"]["kl"] == 8.8
    assert load_recipe("autoencoder").published == {}  # not those of the vae that it extends


def test_every_value_says_where_it_comes_from() -> None:
    lines = dict(
        line.split("  # ")
        for line in re.sub(
            r" +# ", "  # ", explain_recipe("bn-vae@yahoo", ["training.max_epochs=3"])
        ).splitlines()
    )
    assert lines["training.max_epochs: 3"] == "--set"
    assert lines["latents.z.posterior.batch_norm.scale: 0.7"] == "recipe bn-vae"
    assert lines["encoder.hidden_dim: 1024"] == "recipe vae, yahoo"
    assert lines["encoder.kind: lstm"] == "recipe vae"
    assert lines["training.weight_decay: 0.0"] == "default"
    # a replaced part leaves no trace of its former layer
    assert "objective.weight.start" not in explain_recipe("lstm-lm")


def test_the_schema_for_editors_names_every_section_and_kind() -> None:
    schema = recipe_schema()
    sections = {"data", "encoder", "latents", "decoder", "objective", "strategy", "training"}
    assert sections | {"extends", "corpora"} <= set(schema["properties"])
    assert "timestep-mean" in json.dumps(schema)


def test_a_tied_softmax_shares_one_table(tmp_path: Path) -> None:
    sizes = ["decoder.embedding_dim=8", "decoder.hidden_dim=8", "decoder.tied_softmax=true"]
    model = small_model("vae", sizes)
    assert model.decoder.output.weight is model.decoder.embedding.weight
    terms = model(make_batch(SENTENCES))
    terms.reconstruction.sum().backward()
    save_model(model, str(tmp_path / "tied.safetensors"))
    again = small_model("vae", sizes)
    load_model(again, str(tmp_path / "tied.safetensors"))
    assert again.decoder.output.weight is again.decoder.embedding.weight
    assert torch.equal(again.decoder.output.weight, model.decoder.output.weight)
    with pytest.raises(UserError, match="tied_softmax needs"):
        load_recipe("vae", ["decoder.embedding_dim=8", "decoder.tied_softmax=true"])
