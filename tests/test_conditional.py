"""Conditional models: an empty context is none at all, masks, priors, KLs, attention."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import SENTENCES, VOCABULARY, make_batch, random_sentences, small_model, small_recipe

from uncollapse.config import parse_recipe
from uncollapse.data.batches import Batch
from uncollapse.decoders.generation import generate
from uncollapse.distributions.gaussian import DiagonalGaussian
from uncollapse.errors import UserError
from uncollapse.model import Model
from uncollapse.recipes import load_recipe

TURNS = random_sentences(9, seed=3)
CONTEXTS = [TURNS[:3], TURNS[3:4], [], TURNS[4:9]]

GAUSSIAN = {"dim": 4, "prior": {"kind": "conditional-gaussian", "hidden_dim": 5}}
MIXTURE = {
    "dim": 2,
    "groups": 2,
    "prior": {"kind": "mixture", "components": 3, "policy": {"hidden_dim": 5}},
    "divergence": {"kind": "dispersed", "beta": 0.5},
}
CODES = {
    "dim": 3,
    "posterior": {"kind": "categorical", "categories": 4},
    "prior": {"kind": "uniform-categorical", "policy": {"hidden_dim": 5}},
}
LATENTS = {
    "gaussian": GAUSSIAN,
    "batch norm": GAUSSIAN | {"posterior": {"kind": "gaussian", "batch_norm": {"scale": 0.7}}},
    "every word": GAUSSIAN | {"readout": "every", "divergence": {"kind": "timestep-mean"}},
    "max": GAUSSIAN | {"readout": "max"},
    "standard": {"dim": 4},
    "mixture": MIXTURE,
    "codes": CODES,
    "sphere": {
        "dim": 4,
        "posterior": {"kind": "von-mises-fisher"},
        "prior": {"kind": "uniform-sphere"},
    },
    "none": None,
}
GRU = {"kind": "gru", "every_input": False, "initial_state": "hidden", "attention": True}
DECODERS = {
    "attention": GRU,
    "lstm": {"kind": "lstm", "initial_state": "tanh"},
    "skip": {"kind": "lstm", "skip": True, "initial_state": None},
    "transformer": {"kind": "transformer", "heads": 2, "layers": 1},
    "cnn": {"kind": "dilated-cnn", "dilations": [1, 2]},
}


def recipe(latent: str = "gaussian", decoder: str = "attention", **condition):
    """A small conditional recipe."""
    encoder = {"kind": "gru", "embedding_dim": 5, "hidden_dim": 6, "bidirectional": True}
    with_latent = LATENTS[latent] is not None
    values = {
        "name": "test",
        "summary": "-",
        "source": "-",
        "data": {"context_turns": 9},
        "encoder": encoder if with_latent else None,
        "condition": {"hidden_dim": 7, "encoder": None if with_latent else encoder} | condition,
        "latents": {"z": LATENTS[latent]} if with_latent else {},
        "decoder": DECODERS[decoder] | {"embedding_dim": 5, "hidden_dim": 6},
    }
    return parse_recipe(values)


def model_of(latent: str = "gaussian", decoder: str = "attention", **condition) -> Model:
    """In evaluation mode, with weights far from 0."""
    torch.manual_seed(1)
    model = Model(recipe(latent, decoder, **condition), VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.7, 0.7)
    return model.eval()


def without_context(model: Model, latent: str, decoder: str) -> Model:
    """The unconditional model with the same weights, as far as it has them."""
    values = recipe(latent, decoder).model_dump(mode="json")
    values["condition"] = None
    values["data"]["context_turns"] = 0
    values["decoder"].pop("attention", None)
    for part in values["latents"].values():
        if part["prior"]["kind"] == "conditional-gaussian":
            part["prior"] = {"kind": "standard-normal"}
        part["prior"].pop("policy", None)
    plain = Model(parse_recipe(values), VOCABULARY).eval()
    own = model.state_dict()
    for name, weight in plain.state_dict().items():
        # inputs of a layer that are of the context come last
        weight.copy_(own[name][..., : weight.shape[-1]] if weight.dim() else own[name])
    return plain


every_latent = pytest.mark.parametrize("latent", LATENTS)
every_decoder = pytest.mark.parametrize("decoder", DECODERS)


@every_latent
@every_decoder
@pytest.mark.parametrize("contexts", [None, [[], [], [], []]], ids=["none", "empty"])
def test_an_empty_context_gives_the_unconditional_model(
    latent: str, decoder: str, contexts: list | None
) -> None:
    model = model_of(latent, decoder).double()
    plain = without_context(model, latent, decoder).double()
    batch = make_batch(SENTENCES, contexts=contexts)
    condition = model.read(batch)
    assert condition is not None
    assert not condition.present.any()
    posterior, expected = model.posterior(batch), plain.posterior(batch)
    z = None
    if posterior is not None:
        assert expected is not None
        torch.testing.assert_close(posterior.mean, expected.mean, rtol=0, atol=1e-12)
        z = model.sample_prior(4, torch.Generator().manual_seed(0), condition=condition)
        other = plain.sample_prior(4, torch.Generator().manual_seed(0))
        assert other is not None
        if latent not in ("mixture", "codes"):  # a policy draws by other means
            assert z is not None
            assert torch.equal(z, other)
        z = other.double()
        exact = {"rtol": 0, "atol": 1e-6 if latent == "sphere" else 1e-12}
        torch.testing.assert_close(model.log_prior(z, condition), plain.log_prior(z), **exact)
        (one,), (two,) = model(batch).kl.values(), plain(batch).kl.values()
        if latent != "sphere":
            torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    with torch.no_grad():
        score = model.decoder.log_prob(z, batch, condition)
        torch.testing.assert_close(score, plain.decoder.log_prob(z, batch), rtol=0, atol=1e-12)
    assert generate(model.decoder, z, rows=4, condition=condition, max_length=8) == generate(
        plain.decoder, z, rows=4, max_length=8
    )


@every_latent
@every_decoder
def test_no_row_knows_its_neighbours_contexts(latent: str, decoder: str) -> None:
    model = model_of(latent, decoder, readout="attention")
    with torch.no_grad():
        for table in model.embeddings():
            table.weight[0] = 3.0  # a real vector at <pad>: it must not matter
    together = found(model, make_batch(SENTENCES, contexts=CONTEXTS))
    for row, (sentence, context) in enumerate(zip(SENTENCES, CONTEXTS, strict=True)):
        alone = found(model, make_batch([sentence], contexts=[context]))
        for name, value in alone.items():
            torch.testing.assert_close(
                together[name][row], value[0], atol=1e-5, rtol=1e-5, msg=f"{name} of row {row}"
            )


@torch.no_grad()
def found(model: Model, batch: Batch) -> dict[str, torch.Tensor]:
    """What depends on sentences and contexts, without noise."""
    condition = model.read(batch)
    assert condition is not None
    values = {"vector": condition.vector}
    z = None
    posterior = model.posterior(batch, condition)
    if posterior is not None:
        z = model.in_support(posterior.mean)
        values |= {"mean": z, "prior": model.log_prior(z, condition)}
        values |= {f"kl {name}": kl for name, kl in model(batch).kl.items() if kl.shape[1] > 1}
    values["score"] = model.decoder.log_prob(z, batch, condition)
    return values


@every_latent
@every_decoder
def test_steps_agree_with_whole_sentences(latent: str, decoder: str) -> None:
    model = model_of(latent, decoder)
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    with torch.no_grad():
        condition = model.read(batch)
        z = model.sample_prior(4, torch.Generator().manual_seed(0), condition=condition)
        whole = model.decoder.log_prob(z, batch, condition)
        many = None if z is None else z[:, None].expand(-1, 3, -1)
        steps = model.decoder.log_prob_samples(many, batch, condition)
    torch.testing.assert_close(steps[:, 0].float(), whole, atol=1e-4, rtol=1e-5)
    assert (steps == steps[:, :1]).all() or many is not None


@every_decoder
def test_contexts_matter_to_what_is_written(decoder: str) -> None:
    model = model_of("gaussian", decoder)
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    other = make_batch(SENTENCES, contexts=[*CONTEXTS[1:], CONTEXTS[0]])
    with torch.no_grad():
        z = torch.zeros(4, 4)
        one = model.decoder.log_prob(z, batch, model.read(batch))
        two = model.decoder.log_prob(z, other, model.read(other))
    assert (one - two).abs().min() > 1e-4


def test_who_spoke_matters_and_may_be_unknown() -> None:
    model = model_of()
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    assert batch.context is not None
    read = model.read(batch)
    batch.context.same_speaker = 1 - batch.context.same_speaker
    swapped = model.read(batch)
    batch.context.same_speaker = torch.full_like(batch.context.same_speaker, -1)
    unknown = model.read(batch)
    assert read is not None
    assert swapped is not None
    assert unknown is not None
    there = read.present
    assert (read.vector - swapped.vector)[there].abs().amax(1).min() > 1e-3
    assert (read.vector - unknown.vector)[there].abs().amax(1).min() > 1e-3
    blind = model_of(floor=False)
    one = blind.read(make_batch(SENTENCES, contexts=CONTEXTS))
    two = blind.read(batch)
    assert one is not None
    assert two is not None
    assert torch.equal(one.vector, two.vector)


def test_features_are_part_of_the_context() -> None:
    model = model_of(features=[{"column": "topic", "values": 3, "dim": 2}])
    labelled = make_batch(SENTENCES, labels={"topic": [0, 1, 2, -1]}, contexts=CONTEXTS)
    condition = model.read(labelled)
    assert condition is not None
    assert condition.vector.shape == (4, 9)
    assert condition.present.tolist() == [True, True, True, True]
    table = model.context.features[0].weight
    torch.testing.assert_close(condition.vector[:3, 7:], table)
    assert (condition.vector[3, 7:] == 0).all()
    bare = model.read(make_batch(SENTENCES, contexts=CONTEXTS))
    assert bare is not None
    assert bare.present.tolist() == [True, True, False, True]
    assert (bare.vector[:, 7:] == 0).all()


# --- priors and divergences ---------------------------------------------------------------


def test_kl_to_a_conditional_prior_against_monte_carlo() -> None:
    model = model_of().double()
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    with torch.no_grad():
        inference = model.infer(batch)["z"]
        closed = model.named_latents()["z"].kl(inference).sum(1)
        q = inference.posterior
        torch.manual_seed(0)
        z = torch.stack([q.rsample() for _ in range(20_000)], 1)  # (B, S, D)
        ratio = q.log_prob(z) - inference.prior.log_prob(z)
    error = ratio.std(1) / math.sqrt(ratio.shape[1])
    assert ((ratio.mean(1) - closed).abs() < 4 * error).all()
    # without a context the prior is N(0, I)
    assert isinstance(q, DiagonalGaussian)
    torch.testing.assert_close(closed[2], q[2:3].kl_standard().sum())


def test_the_kl_of_bn_cvae_is_the_sum_of_two() -> None:
    model = small_model("bn-cvae").double()
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    inference = model.infer(batch)["z"]
    prior = inference.prior.given_contexts
    q = inference.posterior
    charged = model.named_latents()["z"].penalty(inference)
    mu, var, mu_p, var_p = (
        part.detach()
        for part in (q.mean, q.log_variance.exp(), prior.mean, prior.log_variance.exp())
    )
    both = (var / var_p + (mu - mu_p) ** 2 / var_p - (var / var_p).log() - 1) / 2
    both = both + (var_p + mu_p**2 - var_p.log() - 1) / 2
    torch.testing.assert_close(charged, both.sum(1))
    # eq. 12 has −1 where the two give −2: half a nat more in each dimension
    printed = ((var + (mu - mu_p) ** 2) / var_p + var_p + mu_p**2 - var.log() - 1).sum(1) / 2
    torch.testing.assert_close(printed - charged, torch.full_like(charged, q.mean.shape[1] / 2))


def test_a_posterior_after_every_turn() -> None:
    model = small_model("twr-cvae").double()
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    with torch.no_grad():
        condition = model.read(batch)
        inference = model.infer(batch)["z"]
        latent = model.named_latents()["z"]
        charged = latent.penalty(inference)
        kl = latent.kl(inference).sum(1)
        encoded = model.encoder(batch)
        for row, context in enumerate(CONTEXTS):
            kls = []
            for turns in range(1, max(len(context), 1) + 1):
                # the context as it was after so many turns
                part = make_batch([SENTENCES[row]], contexts=[context[:turns]])
                same = part.context.same_speaker
                same[0, : len(context[:turns])] = batch.context.same_speaker[row, :turns][
                    : len(context[:turns])
                ]
                read = model.read(part)
                features = torch.cat([encoded.summary[row : row + 1], read.vector], -1)
                q, p = latent.posterior(features), latent.prior.given(read)
                kls.append(p.kl(q).sum())
            torch.testing.assert_close(charged[row], torch.stack(kls).mean())
            torch.testing.assert_close(kl[row], kls[-1])
            torch.testing.assert_close(inference.posterior.mean[row], q.mean[0])
    assert condition is not None


def test_a_policy_weighs_the_components() -> None:
    model = model_of("mixture").double()
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    with torch.no_grad():
        condition = model.read(batch)
        assert condition is not None
        prior = model.named_latents()["z"].prior
        weights = prior.policy(condition)  # (B, M, K)
        torch.testing.assert_close(weights[2], torch.full((2, 3), -math.log(3)).double())
        z = torch.randn(4, 6, 4, dtype=torch.float64)
        by_hand = (prior.component_log_prob(z) + weights[:, None]).logsumexp(-1).sum(-1)
        torch.testing.assert_close(model.log_prior(z, condition), by_hand)
        many = condition.select(torch.tensor([0]).repeat(20_000))
        codes = model.draw_codes(20_000, torch.Generator().manual_seed(0), condition=many)
    share = torch.nn.functional.one_hot(codes["z.component"], 3).double().mean(0)
    torch.testing.assert_close(share, weights[0].exp(), atol=0.015, rtol=0)


def test_a_policy_weighs_codes() -> None:
    model = model_of("codes").double()
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    with torch.no_grad():
        condition = model.read(batch)
        assert condition is not None
        latent = model.named_latents()["z"]
        points = latent.prior.points(64)
        assert points is not None
        every = points.double().expand(4, -1, -1)  # (B, C, D)
        total = model.log_prior(every, condition).logsumexp(1)
        torch.testing.assert_close(total, torch.zeros(4).double(), atol=1e-10, rtol=0)
        inference = model.infer(batch, condition=condition)["z"]
        closed = latent.kl(inference).sum(1)
        q = inference.posterior.log_prob(every)
        exact = (q.exp() * (q - model.log_prior(every, condition))).sum(1)
    torch.testing.assert_close(closed, exact)


def test_the_bag_of_words_knows_no_order() -> None:
    model = small_model("cvae-bow").double()
    words = [[5, 6, 7, 8], [8, 5, 7, 6]]
    batch = make_batch(words, contexts=[TURNS[:2], TURNS[:2]])
    condition = model.read(batch)
    z = torch.randn(1, 4, dtype=torch.float64).repeat(2, 1)
    assert model.bag_of_words is not None
    nats = model.bag_of_words(z, batch, condition)
    torch.testing.assert_close(nats[0], nats[1])
    logits = model.bag_of_words.output(
        model.bag_of_words.hidden(torch.cat([z, condition.vector], -1)).tanh()
    )
    expected = -logits.log_softmax(-1)[0, [5, 6, 7, 8, 3]].sum()
    torch.testing.assert_close(nats[0], expected)


def test_prior_sampling_follows_the_context() -> None:
    model = model_of()
    batch = make_batch(SENTENCES, contexts=CONTEXTS)
    with torch.no_grad():
        condition = model.read(batch)
        assert condition is not None
        prior = model.named_latents()["z"].prior.given(condition)
        rows = torch.arange(4).repeat_interleave(5_000)
        z = model.sample_prior(
            20_000, torch.Generator().manual_seed(0), condition=condition.select(rows)
        )
    assert z is not None
    drawn = z.view(4, 5_000, 4)
    own = prior.given_contexts
    torch.testing.assert_close(drawn.mean(1), own.mean, atol=0.08, rtol=0)
    torch.testing.assert_close(drawn.var(1).log(), own.log_variance, atol=0.1, rtol=0)


# --- what a recipe may not say ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("vae", "latents.z.prior={kind: conditional-gaussian}", "needs a condition"),
        ("vae", "latents.z.readout=turns", "readout turns of latent z needs a condition"),
        ("vae", "decoder.attention=true", "decoder.attention needs a condition"),
        ("vae", "data.context_turns=3", "nothing reads a context"),
        ("vae", "latents.z.divergence.anchor=1", "anchor needs prior conditional-gaussian"),
        ("cvae", "data.context_turns=0", "set data.context_turns"),
        ("hred", "condition.encoder=null", "condition.encoder is missing"),
        ("cvae", "condition.flor=true", "did you mean 'floor'"),
        ("cvae", "condition.readout=max", "condition.readout"),
    ],
)
def test_one_line_says_what_does_not_fit(name: str, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_recipe(name, [override])
    assert "\n" not in str(error.value)


def test_the_recipes_shrink() -> None:
    assert small_recipe("cvae").condition.hidden_dim == 7


def test_what_z_owes_to_the_context_is_not_information() -> None:
    """Where q(z|x, context) = p(z|context), nothing is known of the sentence."""
    model = model_of().double()
    batch = make_batch(random_sentences(30), contexts=[TURNS[i % 9 :] for i in range(30)])
    with torch.no_grad():
        inference = model.infer(batch)["z"]
        inference.posterior = inference.prior.given_contexts
        assert inference.posterior.mean.var(0).min() > 1e-4  # it does vary
        same = inference.relative
    zeros = torch.zeros_like(same.mean)
    torch.testing.assert_close(same.mean, zeros)
    torch.testing.assert_close(same.log_variance, zeros)
    # coordinates do not change a KL
    q = model.infer(batch)["z"]
    closed = q.prior.kl(q.posterior)
    torch.testing.assert_close(q.relative.kl_standard(), closed)
