"""What holds for every decoder: one probability, however it is computed."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from decoder_variants import DIM, VARIANTS, by_stepping, every_kind, every_variant, make_decoder
from helpers import SENTENCES, VOCABULARY, make_batch

from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import BOS, EOS, PAD
from uncollapse.decoders import KINDS, base


def test_every_kind_has_a_variant() -> None:
    assert {options["kind"] for options in VARIANTS.values()} == set(KINDS)


# --- one probability ----------------------------------------------------------------------


@torch.no_grad()
@every_variant
@pytest.mark.parametrize("dim", [DIM, 0])
def test_word_by_word_is_all_at_once(variant: str, dim: int) -> None:
    decoder = make_decoder(variant, dim=dim)
    inputs = torch.randint(VOCABULARY, (4, 37))  # more words than a cache starts with room for
    z = torch.randn(4, dim) if dim else None
    found = by_stepping(decoder, z, inputs)
    assert found.shape == (4, 37, decoder.hidden_dim)
    torch.testing.assert_close(found, decoder.states(z, inputs), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@every_variant
def test_log_prob_is_the_sum_over_words(variant: str) -> None:
    decoder, z = make_decoder(variant), torch.randn(len(SENTENCES), DIM)
    found = decoder.log_prob(z, make_batch(SENTENCES, width=13))
    for row, sentence in enumerate(SENTENCES):
        tokens = [BOS, *sentence, EOS]
        total = 0.0
        for step, (_, predicted) in enumerate(pairwise(tokens)):
            prefix = torch.tensor([tokens[: step + 1]])  # encoded anew for every word
            features = decoder.states(z[row : row + 1], prefix)[0, -1]
            total += (decoder.output.weight @ features).log_softmax(0)[predicted].item()
        assert found[row].item() == pytest.approx(total, abs=1e-4)


@every_variant
@pytest.mark.parametrize("positions", [1, 30, 4096])
def test_many_samples_are_one_after_the_other(
    variant: str, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "POSITIONS", positions)
    decoder, batch = make_decoder(variant), make_batch(SENTENCES, width=11)
    z = torch.randn(len(SENTENCES), 5, DIM)
    found = decoder.log_prob_samples(z, batch)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    for s in range(5):
        expected = decoder.log_prob(z[:, s], batch)
        torch.testing.assert_close(found[:, s].float(), expected, atol=1e-4, rtol=1e-5)
    assert (found.std(1) > 1e-4).all()


@every_variant
def test_language_model_has_no_z(variant: str) -> None:
    decoder, batch = make_decoder(variant, dim=0), make_batch(SENTENCES)
    found = decoder.log_prob_samples(None, batch)
    assert found.shape == (len(SENTENCES), 1)
    torch.testing.assert_close(
        found[:, 0].float(), decoder.log_prob(None, batch), atol=1e-4, rtol=1e-5
    )
    assert not decoder.every_input


@every_variant
def test_double_precision_is_exact(variant: str) -> None:
    decoder, batch = make_decoder(variant).double(), make_batch(SENTENCES, width=11)
    z = torch.randn(len(SENTENCES), 3, DIM, dtype=torch.float64)
    with torch.no_grad():
        by_training = torch.stack([decoder.log_prob(part, batch) for part in z.unbind(1)], 1)
        stepped = by_stepping(decoder, z[:, 0], batch.inputs)
        states = decoder.states(z[:, 0], batch.inputs)
    assert by_training.dtype == torch.float64
    torch.testing.assert_close(decoder.log_prob_samples(z, batch), by_training)
    torch.testing.assert_close(stepped, states, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("path", ["training", "evaluation"])
@every_variant
def test_all_sentences_together_have_probability_one(variant: str, path: str) -> None:
    """Sentences of fewer than L words, and beginnings of L words, exhaust everything."""
    length = 3
    decoder = make_decoder(variant, words=7).double()  # three words beside the four specials
    z = torch.randn(DIM, dtype=torch.float64)
    others = [word for word in range(7) if word != EOS]
    finished = make_batch([s for n in range(length) for s in product(others, repeat=n)])
    begun = make_batch(list(product(others, repeat=length)))
    begun = Batch(begun.tokens, begun.lengths - 1, begun.index, {}, begun.total)  # no </s>
    masses = []
    for batch in (finished, begun):
        if path == "training":
            log_prob = decoder.log_prob(z.expand(batch.size, DIM), batch)
        else:
            log_prob = decoder.log_prob_samples(z.expand(batch.size, 1, DIM), batch)[:, 0]
        masses.append(log_prob.exp().sum().item())
    assert 1e-3 < masses[0] < 1
    assert sum(masses) == pytest.approx(1, abs=1e-9)


# --- what can matter, and what cannot -----------------------------------------------------


@torch.no_grad()
@every_variant
def test_padding_does_not_matter(variant: str) -> None:
    decoder = make_decoder(variant).double()
    z = torch.randn(len(SENTENCES), 2, DIM, dtype=torch.float64)
    decoder.embedding.weight[PAD] = 50.0
    together = decoder.log_prob(z[:, 0], make_batch(SENTENCES, width=20))
    sampled = decoder.log_prob_samples(z, make_batch(SENTENCES, width=20))
    for row, sentence in enumerate(SENTENCES):
        alone = make_batch([sentence])
        torch.testing.assert_close(decoder.log_prob(z[row : row + 1, 0], alone)[0], together[row])
        torch.testing.assert_close(
            decoder.log_prob_samples(z[row : row + 1], alone)[0], sampled[row]
        )


@torch.no_grad()
@every_variant
def test_no_word_knows_what_comes_after_it(variant: str) -> None:
    decoder, z = make_decoder(variant), torch.randn(1, DIM)
    inputs = torch.randint(4, VOCABULARY, (1, 9))
    states = decoder.states(z, inputs)
    for step in range(9):
        changed = inputs.clone()
        changed[0, step] = 4 if inputs[0, step] > 4 else 5
        moved = (decoder.states(z, changed) - states).abs().amax(2)[0]  # (T,)
        assert (moved[:step] < 1e-6).all()
        assert moved[step] > 1e-4


@torch.no_grad()
@every_variant
def test_z_reaches_every_word(variant: str) -> None:
    decoder, inputs = make_decoder(variant), torch.randint(4, VOCABULARY, (1, 9))
    moved = decoder.states(torch.randn(1, DIM), inputs) - decoder.states(
        torch.zeros(1, DIM), inputs
    )
    assert (moved.abs().amax(2) > 1e-4).all()


@every_variant
def test_every_parameter_learns_and_padding_does_not(variant: str) -> None:
    decoder = make_decoder(
        variant, word_dropout=0.3, embedding_dropout=0.3, output_dropout=0.3
    ).train()
    z = torch.randn(len(SENTENCES), DIM, requires_grad=True)
    decoder.log_prob(z, make_batch(SENTENCES, width=12)).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
        assert parameter.grad.isfinite().all(), name
    assert z.grad is not None
    assert z.grad.any(1).all()
    assert decoder.embedding.weight.grad is not None
    if decoder.output.weight is not decoder.embedding.weight:  # a tied one predicts <pad>, too
        assert not decoder.embedding.weight.grad[PAD].any()


@every_kind
def test_dropout_falls_on_words_and_never_on_z(kind: str) -> None:
    decoder = make_decoder(kind, embedding_dropout=0.5)
    inputs, z = torch.randint(4, VOCABULARY, (30, 9)), torch.randn(30, DIM)
    plain, dropped = decoder.read(z, inputs), decoder.train().read(z, inputs)
    torch.testing.assert_close(plain[..., :-DIM], decoder.embed(inputs))
    assert torch.equal(dropped[..., -DIM:], z[:, None].expand(-1, 9, -1))
    kept = dropped != 0
    assert 0.4 < kept[..., :-DIM].float().mean() < 0.6
    torch.testing.assert_close(
        dropped[..., :-DIM][kept[..., :-DIM]], 2 * plain[..., :-DIM][kept[..., :-DIM]]
    )


@every_variant
def test_evaluation_refuses_dropout(variant: str) -> None:
    with pytest.raises(AssertionError):
        make_decoder(variant).train().log_prob_samples(torch.zeros(1, 1, DIM), make_batch([[5]]))
