"""Encoders, readouts and decoders, against PyTorch's own modules and exact enumeration."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from helpers import SENTENCES, VOCABULARY, make_batch, random_sentences
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from uncollapse.config import RecurrentDecoderConfig, RecurrentEncoderConfig
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import BOS, EOS, PAD, UNK
from uncollapse.decoders import RecurrentDecoder, build_decoder
from uncollapse.decoders.token_loss import token_nll
from uncollapse.decoders.vocabulary import LAID_OUT, MOST_ROWS, ScoreSums, VocabularyRows
from uncollapse.dropout import Dropout
from uncollapse.encoders import Encoded, RecurrentEncoder, build_encoder
from uncollapse.encoders.recurrent import CELLS
from uncollapse.initialisation import initialise
from uncollapse.readouts import KINDS as READOUTS

DIM = 3
STATES = ["tanh", "linear", "hidden", None]


def make_encoder(kind: str, bidirectional: bool = False, **options: float) -> RecurrentEncoder:
    torch.manual_seed(0)
    config = {"kind": kind, "embedding_dim": 6, "hidden_dim": 7, "bidirectional": bidirectional}
    encoder = build_encoder(RecurrentEncoderConfig.model_validate(config | options), VOCABULARY)
    assert isinstance(encoder, RecurrentEncoder)
    return encoder


def make_decoder(
    kind: str = "lstm", *, dim: int = DIM, words: int = VOCABULARY, **options: object
) -> RecurrentDecoder:
    torch.manual_seed(0)
    config = {"kind": kind, "embedding_dim": 5, "hidden_dim": 8, "init_scale": 0.7}
    decoder = build_decoder(RecurrentDecoderConfig.model_validate(config | options), words, dim)
    assert isinstance(decoder, RecurrentDecoder)
    return decoder


# --- encoders and readouts ----------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_encoder_is_pytorchs_on_packed_sequences(kind: str, bidirectional: bool) -> None:
    encoder = make_encoder(kind, bidirectional)
    reference = CELLS[kind](6, 7, batch_first=True, bidirectional=bidirectional)
    for name, parameter in encoder.forward_cell.named_parameters():
        getattr(reference, name).data.copy_(parameter)
    if encoder.backward_cell is not None:
        for name, parameter in encoder.backward_cell.named_parameters():
            getattr(reference, f"{name}_reverse").data.copy_(parameter)
    batch = make_batch(SENTENCES, width=12)
    packed = pack_padded_sequence(
        encoder.embedding(batch.tokens), batch.lengths, batch_first=True, enforce_sorted=False
    )
    output, state = reference(packed)
    states, _ = pad_packed_sequence(output, batch_first=True, total_length=12)
    last = state[0] if kind == "lstm" else state  # (directions, B, H)
    found = encoder(batch)
    torch.testing.assert_close(found.states[batch.mask], states[batch.mask])
    torch.testing.assert_close(found.summary, torch.cat(list(last), -1))
    assert torch.equal(found.mask, batch.mask)
    assert found.summary.shape[1] == encoder.output_dim


def test_readouts_by_hand() -> None:
    nan = torch.nan  # what padded steps hold must not matter
    states = torch.tensor(
        [
            [[1.0, -5.0], [2.0, 4.0], [-3.0, 1.0]],
            [[-1.0, -2.0], [nan, nan], [nan, nan]],
            [[-4.0, 0.0], [2.0, -0.5], [nan, nan]],
        ]
    )
    mask = torch.arange(3) < torch.tensor([[3], [1], [2]])
    encoded = Encoded(states, torch.tensor([[9.0, 9.0]] * 3), mask)
    expected = {
        "last": [[9, 9], [9, 9], [9, 9]],
        "mean": [[0, 0], [-1, -2], [-1, -0.25]],
        "max": [[2, 4], [-1, -2], [2, 0]],
        "abs": [[-3, -5], [-1, -2], [-4, -0.5]],
    }
    for name, values in expected.items():
        torch.testing.assert_close(READOUTS[name](encoded), torch.tensor(values).float())
    assert READOUTS["every"](encoded) is states
    assert set(READOUTS) == {*expected, "every"}


@pytest.mark.parametrize("name", ["mean", "max", "abs"])
def test_no_gradient_reaches_padding(name: str) -> None:
    states = torch.randn(2, 4, 3, requires_grad=True)
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    READOUTS[name](Encoded(states, states[:, 0], mask)).square().sum().backward()
    assert states.grad is not None
    assert states.grad[mask].any()
    assert not states.grad[~mask].any()


def test_initialisation_reaches_what_it_names() -> None:
    module = nn.ModuleList(
        [nn.Linear(40, 40), nn.LSTM(40, 40), nn.Embedding(90, 40, padding_idx=0)]
    )
    embedding = module[2].weight.clone()
    initialise(module, 0.01, None)
    for parameter in [*module[0].parameters(), *module[1].parameters()]:
        assert 0.005 < parameter.abs().max() <= 0.01
    assert torch.equal(module[2].weight, embedding)
    initialise(module, None, 0.1)
    assert 0.09 < module[2].weight.abs().max() <= 0.1
    assert not module[2].weight[0].any()


# --- the decoder, three ways --------------------------------------------------------------


def naive_log_prob(decoder: RecurrentDecoder, z: Tensor | None, tokens: list[int]) -> Tensor:
    """log p of one sentence, by PyTorch's cells, one word at a time."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    width = decoder.cell.input_size
    cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}[decoder.kind](width, 8)
    for name in names:
        getattr(cell, name).data.copy_(getattr(decoder.cell, f"{name}_l0"))
    hidden = memory = torch.zeros(8)
    if decoder.to_state is not None:
        projected = decoder.to_state(z)
        memory = torch.zeros(8) if decoder.state_rule == "hidden" else projected
        hidden = projected.tanh() if decoder.state_rule == "tanh" else projected
    total = torch.zeros(())
    for read, predicted in pairwise(tokens):
        seen = decoder.embedding.weight[read]
        if decoder.every_input and z is not None:
            seen = torch.cat([seen, z])
        if decoder.kind == "lstm":
            hidden, memory = cell(seen, (hidden, memory))
        else:
            hidden = cell(seen, hidden)
        features = hidden
        if decoder.skip is not None and z is not None:
            features = hidden + decoder.skip.weight @ z
        total = total + (decoder.output.weight @ features).log_softmax(0)[predicted]
    return total


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("every_input", [False, True])
@pytest.mark.parametrize("initial_state", STATES)
@pytest.mark.parametrize("kind", CELLS)
def test_training_path_evaluation_path_and_naive_loop_agree(
    kind: str, initial_state: str | None, every_input: bool, skip: bool
) -> None:
    options = {"initial_state": initial_state, "every_input": every_input, "skip": skip}
    decoder = make_decoder(kind, **options).eval()
    assert decoder.every_input == (every_input or skip)
    batch = make_batch(SENTENCES, width=11)
    z = torch.randn(len(SENTENCES), 4, DIM)
    found = decoder.log_prob_samples(z, batch)
    for s in range(4):
        by_training = decoder.log_prob(z[:, s], batch)
        torch.testing.assert_close(found[:, s].float(), by_training, atol=1e-4, rtol=1e-5)
    for row, sentence in enumerate(SENTENCES):
        naive = naive_log_prob(decoder, z[row, 2], [BOS, *sentence, EOS])
        torch.testing.assert_close(found[row, 2].float(), naive, atol=1e-4, rtol=1e-5)
    depends_on_z = initial_state is not None or every_input or skip
    assert bool((found.std(1) > 1e-4).all()) == depends_on_z


@pytest.mark.parametrize("kind", CELLS)
def test_language_model_has_no_z(kind: str) -> None:
    decoder = make_decoder(kind, dim=0).eval()
    assert decoder.to_state is None
    assert not decoder.every_input
    batch = make_batch(SENTENCES)
    found = decoder.log_prob_samples(None, batch)
    assert found.shape == (len(SENTENCES), 1)
    torch.testing.assert_close(
        found[:, 0].float(), decoder.log_prob(None, batch), atol=1e-4, rtol=0
    )
    naive = naive_log_prob(decoder, None, [BOS, *SENTENCES[1], EOS])
    torch.testing.assert_close(found[1, 0].float(), naive, atol=1e-4, rtol=0)


def test_more_samples_than_a_chunk_holds() -> None:
    decoder = make_decoder().eval()
    batch = make_batch(random_sentences(7))
    z = torch.randn(7, MOST_ROWS // 3, DIM)
    found = decoder.log_prob_samples(z, batch)
    for s in (0, 1, MOST_ROWS // 3 - 1):
        expected = decoder.log_prob(z[:, s], batch)
        torch.testing.assert_close(found[:, s].float(), expected, atol=1e-4, rtol=1e-5)


# --- dropout ------------------------------------------------------------------------------


def seen_by_cell(decoder: RecurrentDecoder, z: Tensor, batch: Batch) -> Tensor:
    """The cell's input ``(B, T, E + D)`` of one training-path pass."""
    seen: list[Tensor] = []
    hook = decoder.cell.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    decoder.log_prob(z, batch)
    hook.remove()
    return seen[0].detach()


def test_word_dropout_hits_words_in_training_only_and_never_the_start() -> None:
    torch.manual_seed(0)
    decoder = make_decoder(word_dropout=0.5)
    batch = make_batch(random_sentences(400, longest=12, seed=3))
    z = torch.randn(batch.size, DIM)
    plain = decoder.embedding(batch.inputs).detach()
    unknown = decoder.embedding.weight[UNK].detach()

    assert torch.equal(seen_by_cell(decoder.eval(), z, batch)[..., :-DIM], plain)
    seen = seen_by_cell(decoder.train(), z, batch)[..., :-DIM]
    replaced = (seen == unknown).all(-1) & (batch.inputs != UNK)
    assert torch.equal(seen[~replaced], plain[~replaced])
    assert not replaced[batch.inputs == BOS].any()
    assert not replaced[batch.inputs == PAD].any()
    words = (batch.inputs > EOS) & batch.target_mask
    share = replaced[words].float().mean().item()
    assert abs(share - 0.5) < 4.5 * (0.25 / words.sum().item()) ** 0.5


def test_dropout_falls_on_words_and_never_on_z() -> None:
    decoder = make_decoder(embedding_dropout=0.5, output_dropout=0.5).train()
    batch = make_batch(SENTENCES)
    z = torch.randn(batch.size, DIM)
    seen = seen_by_cell(decoder, z, batch)
    assert torch.equal(seen[..., -DIM:], z[:, None].expand(-1, seen.shape[1], -1))
    kept = seen[..., :-DIM] != 0
    assert 0 < kept[batch.target_mask].float().mean() < 1
    doubled = 2 * decoder.embedding(batch.inputs)
    torch.testing.assert_close(seen[..., :-DIM][kept], doubled[kept])


def test_padding_gets_no_gradient_in_training() -> None:
    decoder = make_decoder(word_dropout=0.3, embedding_dropout=0.3).train()
    decoder.log_prob(torch.randn(4, DIM), make_batch(SENTENCES, width=12)).sum().backward()
    assert decoder.embedding.weight.grad is not None
    assert not decoder.embedding.weight.grad[PAD].any()


# --- the softmax --------------------------------------------------------------------------


def softmax_case(rows: int, words: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(0)
    features, weight = torch.randn(rows, 16, dtype=dtype), torch.randn(words, 16, dtype=dtype)
    return [features.requires_grad_(), weight.requires_grad_(), torch.randint(0, words, (rows,))]


def loss_and_gradients(nll: Tensor, case: list[Tensor]) -> list[Tensor]:
    pull = torch.linspace(-1, 2, len(nll))  # sentences do not weigh the same
    return [nll.detach(), *torch.autograd.grad((nll * pull).sum(), case[:2])]


@pytest.mark.parametrize(("rows", "words"), [(1, 7), (130, VOCABULARY), (65, 3001)])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_training_softmax_is_pytorchs(rows: int, words: int, precision: torch.dtype | None) -> None:
    case = softmax_case(rows, words)
    with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
        nll = token_nll(*case)
    reference = F.cross_entropy(F.linear(*case[:2]), case[2], reduction="none")
    assert nll.dtype == torch.float32
    for found, wanted in zip(
        loss_and_gradients(nll, case), loss_and_gradients(reference, case), strict=True
    ):
        if precision is None:
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        else:  # eight bits of mantissa, on logits of up to 15
            torch.testing.assert_close(found, wanted, atol=0.12, rtol=0.03)


def test_training_softmax_has_the_gradient_of_its_value() -> None:
    features, weight, targets = softmax_case(5, 6, torch.float64)
    assert torch.autograd.gradcheck(lambda f, w: token_nll(f, w, targets), (features, weight))


def test_softmax_survives_extreme_logits() -> None:
    features, weight, targets = softmax_case(9, VOCABULARY)
    large = (features * 1e4).detach().requires_grad_()
    nll = token_nll(large, weight, targets)
    reference = F.cross_entropy(F.linear(large, weight), targets, reduction="none")
    torch.testing.assert_close(nll, reference)
    found = torch.autograd.grad(nll.sum(), (large, weight))
    wanted = torch.autograd.grad(reference.sum(), (large, weight))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, MOST_ROWS - 1, MOST_ROWS, MOST_ROWS + 1, 2 * MOST_ROWS + 3])
def test_chunked_softmax_is_log_softmax(rows: int) -> None:
    torch.manual_seed(0)
    weight, features = torch.randn(VOCABULARY, 4) * 5, torch.randn(rows, 4) * 5
    targets = torch.randint(0, VOCABULARY, (rows,))
    wanted = (features @ weight.t()).log_softmax(1).gather(1, targets[:, None]).squeeze(1)
    for expected in (0, LAID_OUT):
        found = VocabularyRows(weight, expected).log_likelihood(features, targets)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("sizes", [[1] * 9, [5, 3, 1], [700], [300, 300], [511, 1, 1]])
def test_words_that_wait_for_others_are_all_counted(sizes: list[int]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(VOCABULARY, 4)
    sums, expected = ScoreSums(VocabularyRows(weight), max(sizes)), torch.zeros(max(sizes))
    for size in sizes:
        features, targets = torch.randn(size, 4), torch.randint(0, VOCABULARY, (size,))
        rows = torch.randperm(max(sizes))[:size]
        sums.add(features, targets, rows)
        log_probs = (features @ weight.t()).log_softmax(1)
        expected[rows] += log_probs.gather(1, targets[:, None]).squeeze(1)
    torch.testing.assert_close(sums.finish().float(), expected)


# --- dropout ------------------------------------------------------------------------------


@given(rate=st.sampled_from([0.1, 0.3, 0.5, 0.9]), seed=st.integers(0, 1000))
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    layer = Dropout(rate)
    values = torch.ones(101, 103, dtype=torch.float64)
    dropped = layer(values)
    share = (dropped == 0).double().mean()
    error = (rate * (1 - rate) / values.numel()) ** 0.5
    assert abs(share - rate) < 5 * error
    kept = torch.full((1,), 1 / (1 - rate), dtype=torch.float64)
    torch.testing.assert_close(dropped[dropped != 0].unique(), kept, rtol=1e-4, atol=0)
    # the four lanes of a random number are as independent as the numbers
    flat = (dropped == 0).flatten()[: 4 * (values.numel() // 4)].view(-1, 4).double()
    assert (torch.corrcoef(flat.T) - torch.eye(4)).abs().max() < 5 / len(flat) ** 0.5


def test_dropout_passes_gradients_where_it_passes_values() -> None:
    values = torch.randn(40, 7, requires_grad=True)
    dropped = Dropout(0.5)(values)
    dropped.sum().backward()
    assert values.grad is not None
    assert set(values.grad.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(values.grad == 0, dropped == 0)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values
