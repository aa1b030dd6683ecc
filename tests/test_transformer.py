"""The transformer against a plain loop, its positions, and its encoder's view of padding."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers import SENTENCES, VOCABULARY, make_batch, small_model
from torch import Tensor

from uncollapse.config import TransformerDecoderConfig, TransformerEncoderConfig
from uncollapse.data.tokenizer import PAD
from uncollapse.decoders import TransformerDecoder
from uncollapse.decoders.generation import generate
from uncollapse.encoders import TransformerEncoder
from uncollapse.encoders.attention import (
    SHORT,
    SLOWEST,
    Block,
    Transformer,
    rotate,
    rotation,
    see,
)
from uncollapse.readouts import KINDS as READOUTS

DIM = 3
both_ways = pytest.mark.parametrize("bidirectional", [True, False])


def make_encoder(**options: object) -> TransformerEncoder:
    torch.manual_seed(0)
    values = {"kind": "transformer", "embedding_dim": 6, "hidden_dim": 8, "init_scale": 0.5}
    config = TransformerEncoderConfig.model_validate(values | {"heads": 2} | options)
    return TransformerEncoder(config, VOCABULARY).eval().double()


def make_decoder(**options: object) -> TransformerDecoder:
    torch.manual_seed(0)
    values = {"kind": "transformer", "embedding_dim": 8, "hidden_dim": 8, "heads": 2}
    config = TransformerDecoderConfig.model_validate(values | options)
    return TransformerDecoder(config, VOCABULARY, DIM).eval()


# --- by hand ------------------------------------------------------------------------------


def norm(states: Tensor, part: torch.nn.LayerNorm) -> Tensor:
    centred = states - states.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + part.eps).sqrt() * part.weight + part.bias


def by_hand(blocks: Transformer, states: Tensor, causal: bool) -> Tensor:
    """A transformer over one sentence ``(T, H)``, a query at a time, positions as phases."""
    _, heads, width = blocks.shape
    steps = len(states)
    frequencies = SLOWEST ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    phases = torch.polar(
        torch.ones(steps, width // 2, dtype=torch.float64),
        torch.arange(steps)[:, None] * frequencies,
    )
    for block in blocks.blocks:
        assert isinstance(block, Block)
        parts = norm(states, block.attention_norm) @ block.split.weight.t() + block.split.bias
        q, k, v = parts.view(steps, 3, heads, width).unbind(1)  # (T, heads, width)
        half = width // 2
        q, k = (torch.complex(x[..., :half], x[..., half:]) * phases[:, None] for x in (q, k))
        rows = []
        for t in range(steps):
            last = t + 1 if causal else steps
            seen = []
            for head in range(heads):
                scores = (q[t, head] * k[:last, head].conj()).real.sum(-1) / math.sqrt(width)
                seen.append(scores.softmax(0) @ v[:last, head])
            rows.append(torch.cat(seen))
        states = states + torch.stack(rows) @ block.merge.weight.t() + block.merge.bias
        wide = norm(states, block.mlp_norm) @ block.widen.weight.t() + block.widen.bias
        wide = wide * (1 + torch.erf(wide / math.sqrt(2))) / 2
        states = states + wide @ block.narrow.weight.t() + block.narrow.bias
    return norm(states, blocks.norm)


@both_ways
@pytest.mark.parametrize(("hidden", "heads"), [(8, 2), (8, 4), (7, 3)])
def test_encoder_is_the_plain_loop(bidirectional: bool, hidden: int, heads: int) -> None:
    encoder = make_encoder(hidden_dim=hidden, heads=heads, bidirectional=bidirectional)
    found = encoder(make_batch(SENTENCES, width=12))
    for row, sentence in enumerate(SENTENCES):
        tokens = make_batch([sentence]).tokens[0]
        states = encoder.input(encoder.embedding(tokens) * 6**0.5)
        expected = by_hand(encoder.blocks, states, causal=not bidirectional)
        torch.testing.assert_close(found.states[row, : len(tokens)], expected)
        torch.testing.assert_close(found.summary[row], expected[-1])
    assert encoder.output_dim == hidden == found.summary.shape[1]


@pytest.mark.parametrize("every_input", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
def test_decoder_is_the_plain_loop(prefix: bool, every_input: bool) -> None:
    options = {"prefix": prefix, "every_input": every_input, "init_scale": 0.5}
    decoder = make_decoder(**options).double()
    z, inputs = torch.randn(1, DIM, dtype=torch.float64), torch.randint(VOCABULARY, (1, 9))
    seen = decoder.embedding(inputs[0]) * 8**0.5
    if every_input:
        seen = torch.cat([seen, z.expand(9, DIM)], 1)
    states = decoder.input(seen)
    if decoder.prefix is not None:
        states = torch.cat([decoder.prefix(z), states])
    expected = by_hand(decoder.blocks, states, causal=True)[-9:]
    torch.testing.assert_close(decoder.states(z, inputs)[0], expected)


# --- positions ----------------------------------------------------------------------------


def test_attention_knows_distances_and_not_places() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 5, 6, dtype=torch.float64)
    scores = []
    for first in (0, 1000):
        turn = rotation(torch.arange(first, first + 5), 6, q)
        scores.append(rotate(q, turn) @ rotate(k, turn).T)
    torch.testing.assert_close(*scores)
    turn = rotation(torch.arange(5), 6, q)
    assert not torch.allclose(rotate(q, turn) @ k.T, q @ k.T)


def test_order_of_words_matters() -> None:
    encoder = make_encoder()
    one, other = encoder(make_batch([[5, 6, 7, 8], [5, 7, 6, 8]])).summary
    assert (one - other).abs().max() > 1e-3


@torch.no_grad()
def test_there_is_no_longest_sentence() -> None:
    decoder, encoder = make_decoder(init_scale=0.5), make_encoder()
    batch = make_batch([torch.randint(4, VOCABULARY, (1500,)).tolist(), [5]])
    assert encoder(batch).states.isfinite().all()
    z = torch.randn(2, DIM)
    assert decoder.log_prob(z, batch).isfinite().all()
    decoder.output.weight[3] -= 1000  # never </s>
    decoder.output.weight[4:] += torch.randn(VOCABULARY - 4, 8)
    assert min(len(row) for row in generate(decoder, z, max_length=300)) >= 0


# --- the encoder --------------------------------------------------------------------------


@both_ways
def test_encoder_never_sees_padding(bidirectional: bool) -> None:
    encoder = make_encoder(bidirectional=bidirectional)
    with torch.no_grad():
        encoder.embedding.weight[PAD] = 100.0
    together = encoder(make_batch(SENTENCES, width=15))
    assert together.states.isfinite().all()
    for row, sentence in enumerate(SENTENCES):
        alone = encoder(make_batch([sentence]))
        for name, readout in READOUTS.items():
            found, expected = readout(together)[row], readout(alone)[0]
            if name == "every":
                found = found[: len(sentence) + 2]
            torch.testing.assert_close(found, expected, msg=name)
    sum(
        readout(together)[together.mask if name == "every" else slice(None)].square().sum()
        for name, readout in READOUTS.items()
    ).backward()
    assert encoder.embedding.weight.grad is not None
    assert not encoder.embedding.weight.grad[PAD].any()


@both_ways
def test_what_a_state_of_the_encoder_knows(bidirectional: bool) -> None:
    encoder = make_encoder(bidirectional=bidirectional, layers=1)
    plain, changed = encoder(make_batch([[5, 6, 7, 8, 9], [5, 6, 10, 8, 9]])).states
    moved = (plain - changed).abs().amax(1) > 1e-6  # (T,); the changed word is the fourth token
    assert moved.tolist() == [bidirectional] * 3 + [True] * 4


@pytest.mark.parametrize("readout", READOUTS)
@both_ways
def test_every_readout_reads_a_transformer(readout: str, bidirectional: bool) -> None:
    overrides = [f"latents.z.readout={readout}", f"encoder.bidirectional={bidirectional}"]
    if readout == "every":
        overrides += ["latents.z.divergence={kind: timestep-mean}", "latents.z.combine=mean"]
    terms = small_model("transformer-vae", overrides)(make_batch(SENTENCES))
    assert terms.elbo.shape == (len(SENTENCES),)
    assert terms.elbo.isfinite().all()


# --- initialisation -----------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_untrained_predictions_are_nearly_uniform(tied: bool) -> None:
    decoder = make_decoder(tied_softmax=tied, embedding_dim=256, hidden_dim=256, heads=4, layers=4)
    batch = make_batch([torch.randint(4, VOCABULARY, (60,)).tolist() for _ in range(4)])
    found = decoder.log_prob(torch.randn(4, DIM), batch) / 61
    assert (found + math.log(VOCABULARY)).abs().max() < (0.2 if tied else 0.5)


def test_weights_start_small_and_smaller_where_many_add_up() -> None:
    decoder = make_decoder(embedding_dim=64, hidden_dim=64, layers=8)
    for block in decoder.blocks.blocks:
        assert isinstance(block, Block)
        for part, expected in (
            (block.split, 0.02),
            (block.widen, 0.02),
            (block.merge, 0.005),
            (block.narrow, 0.005),
        ):
            assert part.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert not part.bias.any()
    assert decoder.embedding.weight[PAD + 1 :].std().item() == pytest.approx(0.02, rel=0.1)
    assert not decoder.embedding.weight[PAD].any()


def test_a_recipe_s_own_scale_replaces_them() -> None:
    for module in (
        make_decoder(init_scale=0.3, embedding_init_scale=0.4),
        make_encoder(init_scale=0.3, embedding_init_scale=0.4),
    ):
        assert 0.27 < module.input.weight.abs().max() <= 0.3
        assert 0.27 < module.blocks.blocks[0].widen.weight.abs().max() <= 0.3
        assert 0.35 < module.embedding.weight.abs().max() <= 0.4


def test_dropout_falls_on_what_layers_add() -> None:
    decoder = make_decoder(dropout=0.5, init_scale=0.5)
    z, inputs = torch.randn(2, DIM), torch.randint(4, VOCABULARY, (2, 6))
    assert torch.equal(decoder.states(z, inputs), decoder.states(z, inputs))
    decoder.train()
    assert not torch.equal(decoder.states(z, inputs), decoder.states(z, inputs))


@pytest.mark.parametrize("steps", [1, 9, SHORT + 1])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
def test_what_queries_see(steps: int, causal: bool, dtype: torch.dtype, error: float) -> None:
    """Values and gradients, against PyTorch's own attention in float64."""
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, steps, 8, dtype=torch.float64) for _ in range(3)]
    visible = None if causal else torch.rand(2, 1, 1, steps) < 0.7
    if visible is not None:
        visible[..., 0] = True
    arriving = torch.randn(2, steps, 3, 8, dtype=torch.float64)

    def results(attention: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        queries, keys, values = (part.to(dtype).requires_grad_() for part in exact)
        seen = attention(queries, keys, values, visible)
        return [seen, *torch.autograd.grad(seen, [queries, keys, values], arriving.to(dtype))]

    def pytorchs(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        seen = F.scaled_dot_product_attention(queries, keys, values, mask, is_causal=causal)
        return seen.transpose(1, 2)

    wanted = results(pytorchs, torch.float64)
    for found, expected in zip(results(see, dtype), wanted, strict=True):
        # of one position, what queries and keys get is 0
        assert (found.double() - expected).norm() < error * expected.norm().clamp(min=1)
