"""Do compiled kernels compute what PyTorch computes?

``python -m uncollapse.native.check LIBRARY`` exits with 1, naming one that does not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from uncollapse.native.kernels import GATES, Kernels

# of f32 results against float64, relative to the largest entry or to 1; bf16 has 8 bits
LARGEST_ERROR = {torch.float32: 3e-6, torch.bfloat16: 8e-3}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the arrays that are tried; as they stand, no whole number of blocks or vectors.

    Attributes
    ----------
    rows : int
    words : int
        Of the vocabulary. What is more than three, one of them cannot be.
    width : int
        Of a recurrent network's state, half of it in loops: theirs is even.
    scale : float
        Of the logits.
    """

    rows: int = 37
    words: int = 1003
    width: int = 19
    scale: float = 5.0


def worst_errors(
    found: Kernels, dtype: torch.dtype, seed: int = 0, sizes: Sizes | None = None
) -> dict[str, float]:
    """The largest error of every kernel on random arrays of ``dtype``, against float64.

    Infinite, or NaN, where a kernel hides what is no number.
    """
    sizes = sizes or Sizes()
    torch.manual_seed(seed)
    return {
        **_softmax_errors(found, dtype, sizes),
        **_draw_errors(found, dtype, sizes),
        **_step_errors(found, "lstm", dtype, sizes),
        **_step_errors(found, "gru", dtype, sizes),
        **_loop_errors(found, "lstm", dtype, sizes),
        **_loop_errors(found, "gru", dtype, sizes),
        **(_adam_errors(found, sizes) if dtype == torch.float32 else {}),
        **_attention_errors(found, dtype, sizes),
        **_sentence_errors(found, dtype, sizes, causal=True),
        **_sentence_errors(found, dtype, sizes, causal=False),
    }


def _softmax_errors(found: Kernels, dtype: torch.dtype, sizes: Sizes) -> dict[str, float]:
    rows, words = sizes.rows, sizes.words
    logits = (sizes.scale * torch.randn(rows, words)).to(dtype)
    targets = torch.randint(words, (rows,))
    if words > 3:
        logits[:, 3] = -torch.inf
        targets[targets == 3] = 0
    log_probs = logits.double().log_softmax(1)
    chosen = log_probs.gather(1, targets[:, None])  # (N, 1)
    one_hot = nn.functional.one_hot(targets, words)
    scores = found.log_likelihood(logits, targets)
    gradient = logits.clone()
    nll = found.softmax_gradient_(gradient, targets)
    wrong = logits.clone()
    wrong[:, words // 2] = torch.nan  # a guard against steps that are no numbers must see it
    hidden = found.log_likelihood(wrong, targets).isfinite()
    hidden |= found.softmax_gradient_(wrong, targets).isfinite()
    return {
        "what becomes of NaN": torch.inf if bool(hidden.any()) else 0.0,
        "log_likelihood": _error(scores, chosen[:, 0]),
        "softmax_gradient": _error(gradient, log_probs.exp() - one_hot),
        "softmax_gradient's loss": _error(nll, -chosen[:, 0]),
    }


def _draw_errors(found: Kernels, dtype: torch.dtype, sizes: Sizes) -> dict[str, float]:
    """How far draws lie from where the distribution function meets the uniform number."""
    logits = (sizes.scale / 2 * torch.randn(2 * sizes.rows, sizes.words)).to(dtype)
    uniforms = torch.rand(2 * sizes.rows)
    errors = {"greatest": float((found.greatest(logits) != logits.float().argmax(1)).sum())}
    for name, temperature, top_p in (("draw", 0.7, 1.0), ("draw of a nucleus", 1.3, 0.6)):
        probs = (logits.double() / temperature).softmax(1)
        ordered = probs.sort(1, descending=True).values
        kept = (ordered.cumsum(1) - ordered < top_p).sum(1, keepdim=True)
        probs = probs * (probs >= ordered.gather(1, kept - 1))
        above = (probs / probs.sum(1, keepdim=True)).cumsum(1)  # (N, V)
        words = found.draw(logits, uniforms, temperature, top_p)[:, None]
        high = above.gather(1, words)
        low = high - probs.gather(1, words) / probs.sum(1, keepdim=True)
        outside = (low - uniforms[:, None]).clamp(min=0) + (uniforms[:, None] - high).clamp(min=0)
        errors[name] = float(outside.max()) + float((probs.gather(1, words) == 0).sum())
    return errors


def _step_errors(found: Kernels, cell: str, dtype: torch.dtype, sizes: Sizes) -> dict[str, float]:
    rows, width, across = sizes.rows, sizes.width, GATES[cell] * sizes.width
    given, recurrent = 2 * torch.randn(rows, across), torch.randn(rows, across).to(dtype)
    bias, before = torch.randn(across), torch.randn(rows, width)
    of_output, of_hidden = torch.randn(2, rows, width).to(dtype).unbind()
    of_memory = torch.randn(rows, width)
    exact = _exact_step(cell, given, recurrent.double(), bias, before)
    expected = _exact_gradients(exact, of_output.double() + of_hidden.double(), of_memory)
    gates, inner, memory = given.clone(), torch.empty(rows, width), torch.empty(rows, width)
    hidden, of_recurrent = torch.empty_like(of_hidden), torch.empty_like(recurrent)
    of_given = torch.empty_like(given)
    found.gates_forward(cell, gates, recurrent, bias, before, inner, memory, hidden)
    arriving = (of_output, of_hidden, of_memory)
    found.gates_backward(cell, gates, inner, before, *arriving, of_given, of_recurrent)
    return {
        f"{cell}_forward": _worst((memory, hidden), exact[3:]),
        f"{cell}_backward": _worst((of_given, of_recurrent, of_memory), expected),
    }


def _loop_errors(found: Kernels, cell: str, dtype: torch.dtype, sizes: Sizes) -> dict[str, float]:
    """Of every step, from where the step before has led: what was rounded there is no error."""
    rows, width, across = sizes.rows, 2 * sizes.width, 2 * GATES[cell] * sizes.width
    counts = [rows, rows, rows - rows // 3, (rows + 1) // 2]  # of the steps
    total, steps = sum(counts), len(counts)
    given, bias = 2 * torch.randn(total, across), torch.randn(across)
    weight = (torch.randn(across, width) / width**0.5).to(dtype)
    memory = torch.randn(rows + total, width)
    states, of_states = memory.to(dtype, copy=True), torch.randn(total, width).to(dtype)
    gates, inner, of_memory = given.clone(), torch.empty(total, width), torch.randn(rows, width)
    of_given, of_recurrent = torch.empty_like(given), torch.empty_like(given, dtype=dtype)
    of_biases, of_hidden = torch.zeros(steps, across), torch.empty(rows, width)
    after = of_memory.clone()
    starts = torch.tensor([0, *counts]).cumsum(0)
    found.loop_forward(cell, gates, weight, bias, inner, memory, states, starts)
    kept, shares = (gates, inner, memory), (of_given, of_recurrent, of_biases)
    found.loop_backward(cell, weight, *kept, of_states, *shares, of_hidden, after, starts)
    wide, product = weight.double(), torch.zeros(rows, width).double()
    of_memory = of_memory.double()
    memories, hidden = memory.split([rows, *counts]), states.split([rows, *counts])
    arrays = [array.split(counts) for array in (given, of_states, of_given, of_recurrent)]
    forward, backward = [], []
    for step in reversed(range(steps)):
        own, arriving, outer, within = (array[step] for array in arrays)
        before, left = memories[step][: len(own)], hidden[step][: len(own)]
        exact = _exact_step(cell, own, left.double() @ wide.t(), bias, before)
        forward.append(_worst((memories[step + 1], hidden[step + 1]), exact[3:]))
        alive = slice(len(own))
        expected = _exact_gradients(exact, arriving.double() + product[alive], of_memory[alive])
        found_of = (outer, within, of_biases[step])
        backward.append(_worst(found_of, (*expected[:2], within.double().sum(0))))
        product[alive], of_memory[alive] = within.double() @ wide, expected[2]
    backward.append(_worst((of_hidden, after), (product, of_memory)))
    return {
        f"{cell}_loop_forward": _largest(forward),
        f"{cell}_loop_backward": _largest(backward),
    }


def _exact_step(
    cell: str, given: Tensor, recurrent: Tensor, bias: Tensor, before: Tensor
) -> tuple[Tensor, ...]:
    """The shares of the input and the state, the memory before; memory and state after."""
    own, share, start = (
        array.detach().double().requires_grad_() for array in (given, recurrent, before)
    )
    biased = share + bias.double()
    if cell == "lstm":
        take, forget, value, give = (own + biased).chunk(4, 1)
        memory = forget.sigmoid() * start + take.sigmoid() * value.tanh()
        return own, share, start, memory, give.sigmoid() * memory.tanh()
    reset, update, value = own.chunk(3, 1)
    for_reset, for_update, inner = biased.chunk(3, 1)
    new = (value + (reset + for_reset).sigmoid() * inner).tanh()
    state = new + (update + for_update).sigmoid() * (start - new)
    return own, share, start, state, state


def _exact_gradients(
    step: tuple[Tensor, ...], of_hidden: Tensor, of_memory: Tensor
) -> tuple[Tensor, ...]:
    *sources, memory, hidden = step
    arriving = (hidden * of_hidden).sum() + (memory * of_memory.double()).sum()
    return torch.autograd.grad(arriving, sources)


def _worst(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    return _largest([_error(own, right) for own, right in zip(found, exact, strict=True)])


def _largest(errors: list[float]) -> float:
    return float(torch.tensor(errors).max())  # NaN, if one is: Python's depends on the order


def _adam_errors(found: Kernels, sizes: Sizes) -> dict[str, float]:
    """Of rows that were idle from every step on, early and late, and of a step of theirs."""
    betas, rate, epsilon, steps = (0.9, 0.999), 1e-3, 1e-8, 900
    since = torch.randint(1, steps + 1, (sizes.rows,))
    late = sizes.rows // 2
    since[:late] = steps - torch.arange(late) % 70
    idle = _idle_shares(since, late, steps, rate, betas)
    rows = torch.randperm(2 * sizes.rows)[: sizes.rows]
    p, m = torch.randn(2, 2 * sizes.rows, sizes.width)
    v, gradient = m.square() * torch.rand(m.shape), torch.randn(sizes.rows, sizes.width)
    parts = (torch.zeros_like(p), m, v)  # from 0: a large weight would hide its movement
    caught_up = found.adam_catch_up(parts, rows, idle, epsilon)
    moved = torch.zeros(len(rows), sizes.width).double()
    first, second = m[rows].double(), v[rows].double()
    for step in range(1, steps + 1):
        without = (since < step)[:, None]
        first = torch.where(without, first * betas[0], first)
        second = torch.where(without, second * betas[1], second)
        below = (second / (1 - betas[1] ** step)).sqrt() + epsilon
        moved -= torch.where(without, rate / (1 - betas[0] ** step) * first / below, 0)
    exact = (moved, first, second)
    errors = [_error(one / rate, other / rate) for one, other in zip(caught_up, exact, strict=True)]
    table = (p, m, v)
    gains = (1 - betas[0], betas[1], 1 - betas[1])
    found.adam_update(caught_up, gradient, rows, table, 0.5, *gains, rate, 1.1, epsilon)
    first = first + (1 - betas[0]) * (0.5 * gradient - first)
    second = second + (1 - betas[1]) * ((0.5 * gradient).square() - second)
    exact = (moved - rate * first / (1.1 * second.sqrt() + epsilon), first, second)
    after = [_error(one[rows], other) for one, other in zip(table, exact, strict=True)]
    return {"adam_catch_up": _largest(errors), "adam_update": _largest(after)}


def _idle_shares(
    since: Tensor, late: int, steps: int, rate: float, betas: tuple[float, float]
) -> tuple[Tensor, ...]:
    """What rows need that were idle ``since``: moments of the first ``late``, sums of the others.

    Early steps are too unlike each other for moments.
    """
    ages = torch.arange(steps + 1)
    first, second = (beta ** ages.double() for beta in betas)
    rates, scales = rate / (1 - first), (1 - second).rsqrt()  # of no step 0, which none asks for
    root = second.sqrt()
    at = since[:, None] + ages  # (n, steps + 1)
    counts = (ages > 0) & (at <= steps)
    at = at.clamp(max=steps)
    a = torch.where(counts, first * rates[at], 0)
    b = torch.where(counts, root * scales[at], 0)
    total = a.sum(1, keepdim=True)
    mean = torch.where(total > 0, (a * b).sum(1, keepdim=True) / total, 1)
    moments = [(a * (b - mean) ** power).sum(1) for power in (2, 3)]
    idle = steps - since
    columns = torch.stack([total[:, 0], mean[:, 0], moments[0], -moments[1]])
    columns[:, late:] *= torch.tensor([0, 1, 0, 0])[:, None]
    columns = torch.cat([columns, torch.stack([first[idle], second[idle]])]).float()  # (6, n)
    last = torch.where(torch.arange(len(since)) < late, 0, idle)
    return columns, since, last, first, root, rates, scales


def _attention_errors(found: Kernels, dtype: torch.dtype, sizes: Sizes) -> dict[str, float]:
    rows, heads, width, capacity = sizes.rows, 3, 2 * sizes.width, 7
    places = torch.randperm(rows + 2)[:rows]
    lengths = torch.randint(capacity, (rows,))
    parts = torch.randn(rows, 3, heads, width).to(dtype)
    keys, values = torch.randn(2, rows + 2, heads, capacity, width).to(dtype)
    angles = 6 * torch.rand(rows, width // 2)
    turn = angles.cos(), angles.sin()
    query, key, value = parts.double().unbind(1)  # (n, heads, width)
    query, key = (_turned(own, turn) for own in (query, key))
    exact_keys, exact_values = keys.double(), values.double()
    exact_keys[places, :, lengths], exact_values[places, :, lengths] = key, value
    scores = (exact_keys[places] @ query[..., None]).squeeze(-1) / width**0.5
    unseen = torch.arange(capacity) > lengths[:, None]
    weights = scores.masked_fill(unseen[:, None], -torch.inf).softmax(-1)  # (n, heads, capacity)
    exact = (weights[:, :, None] @ exact_values[places]).squeeze(2)
    seen = found.attend(parts, turn, keys, values, places, lengths)
    return {
        "attend": _error(seen, exact),
        "attend's keys and values": max(_error(keys, exact_keys), _error(values, exact_values)),
    }


def _sentence_errors(
    found: Kernels, dtype: torch.dtype, sizes: Sizes, *, causal: bool
) -> dict[str, float]:
    batch, steps, heads, width = 3, sizes.rows, 2, 2 * sizes.width
    parts = torch.randn(batch, steps, 3, heads, width).to(dtype)
    angles = 6 * torch.rand(steps, width // 2)
    turn = angles.cos(), angles.sin()
    visible = torch.rand(batch, steps) < 0.7
    visible[:, 0] = True
    arriving = torch.randn(batch, steps, heads, width).to(dtype)
    exact = parts.double().requires_grad_()
    queries, keys, values = exact.permute(2, 0, 3, 1, 4)  # (B, heads, T, width) each
    queries, keys = (_turned(own.transpose(1, 2), turn).transpose(1, 2) for own in (queries, keys))
    mask = torch.ones(steps, steps).tril().bool() if causal else visible[:, None, None]
    scores = (queries @ keys.transpose(2, 3) / width**0.5).masked_fill(~mask, -torch.inf)
    seen = (scores.softmax(3) @ values).transpose(1, 2)  # (B, T, heads, width)
    (of_parts,) = torch.autograd.grad(seen, exact, arriving.double())
    shown = None if causal else visible
    own = found.attention_forward(parts, turn, shown)
    gradient = found.attention_backward(parts, turn, shown, arriving)
    name = "causal attention" if causal else "attention"
    return {name: _error(own, seen), f"{name}'s gradient": _error(gradient, of_parts)}


def _turned(vectors: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Pairs of channels of ``(n, heads, width)`` turned by angles ``(n, width / 2)``."""
    cosine, sine = (own.double()[:, None] for own in turn)
    one, other = vectors.chunk(2, -1)
    return torch.cat([one * cosine - other * sine, one * sine + other * cosine], -1)


def _error(found: Tensor, exact: Tensor) -> float:
    exact = exact.detach()
    return float((found.double() - exact).abs().max() / exact.abs().max().clamp(min=1))


def main() -> None:
    """Check the library that is named."""
    library = Kernels(Path(sys.argv[1]))
    for dtype, largest in LARGEST_ERROR.items():
        errors = worst_errors(library, dtype)
        for name, error in errors.items():
            if not error <= largest:  # NaN is not
                sys.exit(f"{name} is off by {error:.1e} in {str(dtype).removeprefix('torch.')}")


if __name__ == "__main__":
    main()
