"""The time loops of our own compute what PyTorch's layers do, and so do their gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from uncollapse.recurrent import advance, has_loop, run, run_words, skips_padding

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": nn.RNN,
}
every_cell = pytest.mark.parametrize("kind", CELLS)
Case = tuple[nn.LSTM | nn.GRU | nn.RNN, Tensor, tuple[Tensor, Tensor]]


def make_case(
    kind: str,
    sizes: tuple[int, int, int, int] = (3, 6, 5, 4),
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Case:
    """A network, inputs and a state; ``sizes`` are B, T, E and H."""
    torch.manual_seed(seed)
    rows, steps, inner, width = sizes
    cell = CELLS[kind](inner, width, batch_first=True, dtype=dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.uniform_(-1, 1)
    inputs = torch.randn(rows, steps, inner, dtype=dtype, requires_grad=True)
    hidden, memory = torch.randn(2, rows, width, dtype=dtype).unbind()
    return cell, inputs, (hidden.requires_grad_(), memory.requires_grad_())


def by_pytorch(case: Case) -> Tensor:
    cell, inputs, (hidden, memory) = case
    first = (hidden[None], memory[None]) if isinstance(cell, nn.LSTM) else hidden[None]
    return cell(inputs, first)[0]


def gradients(states: Tensor, case: Case) -> list[Tensor]:
    """Of a weighted sum of the states, with respect to all that they depend on."""
    cell, inputs, (hidden, memory) = case
    weights = torch.linspace(-1, 2, states.numel()).view_as(states)
    wanted = [inputs, hidden, *cell.parameters()] + [memory] * isinstance(cell, nn.LSTM)
    wanted = [tensor for tensor in wanted if tensor.requires_grad]
    return list(torch.autograd.grad((states * weights.to(states)).sum(), wanted))


@every_cell
@settings(max_examples=25)
@given(
    sizes=st.tuples(*[st.integers(1, 7)] * 4),
    seed=st.integers(0, 2**31 - 1),
)
def test_states_and_gradients_are_pytorchs(
    kind: str, sizes: tuple[int, int, int, int], seed: int
) -> None:
    case = make_case(kind, sizes, seed=seed)
    states, expected = run(*case), by_pytorch(case)
    torch.testing.assert_close(states, expected)
    torch.testing.assert_close(gradients(states, case), gradients(expected, case))


def of_lengths(kind: str, sizes: tuple[int, int, int, int], seed: int, dtype: torch.dtype) -> None:
    """Sentences of their own lengths give what a packed sequence does, whatever pads them."""
    case = cell, inputs, (hidden, memory) = make_case(kind, sizes, dtype, seed)
    rows, steps = sizes[:2]
    lengths = torch.randint(1, steps + 1, (rows,))
    real = (torch.arange(steps) < lengths[:, None])[:, :, None]  # (B, T, 1)
    with torch.no_grad():
        inputs[~real[:, :, 0]] = torch.nan if skips_padding(cell) else 7
    states = run(cell, inputs, (hidden, memory), lengths).where(real, 0)
    first = (hidden[None], memory[None]) if isinstance(cell, nn.LSTM) else hidden[None]
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    expected = pad_packed_sequence(cell(packed, first)[0], True, total_length=steps)[0]
    found, right = ([own, *gradients(own, case)] for own in (states, expected))
    for own, other in zip(found, right, strict=True):
        assert (own - other).norm() <= 20 * torch.finfo(dtype).eps * (1 + other.norm())


@every_cell
@settings(max_examples=25)
@given(sizes=st.tuples(*[st.integers(1, 7)] * 4), seed=st.integers(0, 2**31 - 1))
def test_sentences_of_their_own_lengths(
    kind: str, sizes: tuple[int, int, int, int], seed: int
) -> None:
    of_lengths(kind, sizes, seed, torch.float64)


@every_cell
def test_no_state_is_a_state_of_zeros(kind: str) -> None:
    cell, inputs, (hidden, _) = make_case(kind)
    zeros = torch.zeros_like(hidden)
    assert torch.equal(run(cell, inputs), run(cell, inputs, (zeros, zeros)))
    torch.testing.assert_close(run(cell, inputs), cell(inputs)[0])


@every_cell
def test_in_single_precision(kind: str) -> None:
    case = make_case(kind, (9, 30, 11, 16), torch.float32)
    states, expected = run(*case), by_pytorch(case)
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)
    for own, exact in zip(gradients(states, case), gradients(expected, case), strict=True):
        assert (own - exact).norm() <= 1e-5 * exact.norm()


@every_cell
@pytest.mark.parametrize("sizes", [(2, 0, 5, 4), (0, 6, 5, 4)], ids=["steps", "rows"])
def test_of_nothing_comes_what_pytorch_says(kind: str, sizes: tuple[int, int, int, int]) -> None:
    case = make_case(kind, sizes)
    try:
        expected = by_pytorch(case)
    except RuntimeError as error:
        with pytest.raises(RuntimeError, match=str(error)[:20]):
            run(*case)
    else:
        assert run(*case).shape == expected.shape


@every_cell
def test_without_gradients_nothing_is_kept(kind: str) -> None:
    case = make_case(kind)
    with torch.no_grad():
        states = run(*case)
    assert not states.requires_grad
    assert torch.equal(states, run(*case))


@every_cell
@pytest.mark.parametrize("learning", ["inputs", "state", "weights", "recurrent weights"])
def test_a_part_may_be_frozen(kind: str, learning: str) -> None:
    cell, inputs, (hidden, memory) = case = make_case(kind)
    inputs.requires_grad_(learning == "inputs")
    for tensor in (hidden, memory):
        tensor.requires_grad_(learning == "state")
    for name, parameter in cell.named_parameters():
        recurrent = name in ("weight_hh_l0", "bias_hh_l0")
        parameter.requires_grad_("weights" in learning and (recurrent or learning == "weights"))
    found = gradients(run(*case), case)
    assert found
    torch.testing.assert_close(found, gradients(by_pytorch(case), case))


@every_cell
def test_gradients_arrive_at_some_steps_alone(kind: str) -> None:
    """As from the state of a sentence's last word: other steps get none, or a view of one."""
    case = make_case(kind)
    for choose in (lambda s: s[:, -1], lambda s: s[0, 2:3].expand(4, -1), lambda s: s.sum()):
        found = gradients(choose(run(*case)), case)
        torch.testing.assert_close(found, gradients(choose(by_pytorch(case)), case))


@every_cell
def test_two_losses_add_up(kind: str) -> None:
    case = make_case(kind)
    states = run(*case)
    once = torch.autograd.grad(states.sum(), case[1], retain_graph=True)[0]
    again = torch.autograd.grad(states.sum(), case[1])[0]
    assert torch.equal(once, again)


@every_cell
def test_mixed_precision_errs_as_pytorchs(kind: str) -> None:
    case = make_case(kind, (9, 20, 11, 16), torch.float32)
    exact = gradients(by_pytorch(case), case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, rounded = run(*case), by_pytorch(case)
    assert states.dtype == torch.bfloat16
    pairs = zip(gradients(states, case), gradients(rounded, case), exact, strict=True)
    for own, theirs, right in pairs:
        assert own.dtype == right.dtype
        assert (own - right).norm() <= 1.5 * (theirs - right).norm() + 1e-3 * right.norm()


@torch.no_grad()
@every_cell
def test_a_step_at_a_time(kind: str) -> None:
    cell, inputs, (hidden, memory) = case = make_case(kind)
    weight, _, bias, _ = cell.all_weights[0]
    memory = memory if kind == "lstm" else hidden
    for step, expected in enumerate(run(*case).unbind(1)):
        given = nn.functional.linear(inputs[:, step], weight, bias)
        hidden, memory = advance(cell, given, hidden, memory)
        torch.testing.assert_close(hidden, expected)


@every_cell
def test_lengths_of_all_steps_change_nothing(kind: str) -> None:
    cell, inputs, state = make_case(kind)
    lengths = torch.full((len(inputs),), inputs.shape[1])
    torch.testing.assert_close(run(cell, inputs, state, lengths), run(cell, inputs, state))


def test_words_of_sentences_of_their_own_lengths() -> None:
    cell = make_case("gru")[0]
    rows, words, lengths = torch.randn(9, 5).double(), torch.randint(9, (4, 6)), [6, 1, 3, 3]
    states = run_words(cell, rows, words, lengths=torch.tensor(lengths))
    for own, sentence, length in zip(states, words, lengths, strict=True):
        expected = run(cell, rows[sentence[:length]][None])[0]
        torch.testing.assert_close(own[:length], expected)


def of_words(kind: str, dtype: torch.dtype, *, projected: bool) -> list[Tensor]:
    """States and all gradients, where words repeat and something stands beside them."""
    cell, _, state = make_case(kind, (3, 6, 5, 4), dtype)
    rows = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    beside = torch.randn(3, 2, dtype=dtype, requires_grad=True)
    words = torch.randint(4, (3, 6))
    if projected:
        states = run_words(cell, rows, words, state, beside)
    else:
        inputs = torch.cat([rows[words], beside[:, None].expand(-1, 6, -1)], 2)
        states = by_pytorch((cell, inputs, state))
    wanted = [rows, beside, state[0], *cell.parameters()]
    return [states, *torch.autograd.grad(states.square().sum(), wanted)]


def test_types_of_words_are_projected_once() -> None:
    found = of_words("gru", torch.float64, projected=True)
    torch.testing.assert_close(found, of_words("gru", torch.float64, projected=False))


def test_where_there_is_a_loop() -> None:
    assert has_loop(make_case("gru")[0])
    assert not has_loop(make_case("rnn")[0])
    assert not has_loop(make_case("lstm")[0])  # without kernels PyTorch's is as good
    assert not has_loop(nn.GRU(2, 3, device="meta"))
