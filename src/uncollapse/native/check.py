"""Do compiled kernels compute what PyTorch computes?

``python -m uncollapse.native.check LIBRARY`` exits with 1, naming the worst one, if they do not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from uncollapse.native.kernels import Kernels

# of f32 results against float64, relative to the largest entry; bf16 results have 8 bits
LARGEST_ERROR = {torch.float32: 3e-6, torch.bfloat16: 8e-3}


def worst_errors(found: Kernels, dtype: torch.dtype, seed: int = 0) -> dict[str, float]:
    """The largest error of every kernel on random arrays of ``dtype``, against float64."""
    torch.manual_seed(seed)
    return {
        **_softmax_errors(found, dtype),
        **_draw_errors(found, dtype),
        **_lstm_errors(found, dtype),
        **_gru_errors(found, dtype),
    }


def _softmax_errors(found: Kernels, dtype: torch.dtype) -> dict[str, float]:
    logits = (5 * torch.randn(37, 1003)).to(dtype)  # no whole number of blocks or vectors
    logits[:, 3] = -torch.inf
    targets = torch.randint(4, 1003, (37,))
    log_probs = logits.double().log_softmax(1)
    chosen = log_probs.gather(1, targets[:, None])  # (N, 1)
    one_hot = nn.functional.one_hot(targets, 1003)
    scores = found.log_likelihood(logits, targets)
    gradient = logits.clone()
    nll = found.softmax_gradient_(gradient, targets)
    return {
        "log_likelihood": _error(scores, chosen[:, 0]),
        "softmax_gradient": _error(gradient, log_probs.exp() - one_hot),
        "softmax_gradient's loss": _error(nll, -chosen[:, 0]),
    }


def _draw_errors(found: Kernels, dtype: torch.dtype) -> dict[str, float]:
    """How far draws lie from where the distribution function meets the uniform number."""
    logits = (2 * torch.randn(64, 517)).to(dtype)
    uniforms = torch.rand(64)
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


def _lstm_errors(found: Kernels, dtype: torch.dtype) -> dict[str, float]:
    given, recurrent = 2 * torch.randn(5, 4 * 19), torch.randn(5, 4 * 19).to(dtype)
    before, gradient = torch.randn(5, 19), torch.randn(2, 5, 19).to(dtype)
    of_cell = torch.randn(5, 19)
    exact = (given.double() + recurrent.double()).requires_grad_()
    cell_before = before.double().requires_grad_()
    take, forget, value, give = exact.chunk(4, 1)
    cell = forget.sigmoid() * cell_before + take.sigmoid() * value.tanh()
    hidden = give.sigmoid() * cell.tanh()
    arriving = (hidden * gradient.double().sum(0)).sum() + (cell * of_cell.double()).sum()
    of_gates, of_before = torch.autograd.grad(arriving, [exact, cell_before])
    gates, new_cell = given.clone(), torch.empty(5, 19)
    new_hidden, found_gradient = torch.empty(5, 19).to(dtype), torch.empty(5, 4 * 19).to(dtype)
    found.lstm_forward(gates, recurrent, before, new_cell, new_hidden)
    found.lstm_backward(gates, before, new_cell, gradient[0], gradient[1], of_cell, found_gradient)
    return {
        "lstm_forward": max(_error(new_cell, cell), _error(new_hidden, hidden)),
        "lstm_backward": max(_error(found_gradient, of_gates), _error(of_cell, of_before)),
    }


def _gru_errors(found: Kernels, dtype: torch.dtype) -> dict[str, float]:
    given, recurrent = 2 * torch.randn(5, 3 * 19), torch.randn(5, 3 * 19).to(dtype)
    bias, before = torch.randn(3 * 19), torch.randn(5, 19)
    gradient, of_state = torch.randn(2, 5, 19).to(dtype), torch.randn(5, 19)
    own = given.double().requires_grad_()
    share = recurrent.double().requires_grad_()
    start = before.double().requires_grad_()
    reset, update, value = own.chunk(3, 1)
    for_reset, for_update, inner = (share + bias.double()).chunk(3, 1)
    update = (update + for_update).sigmoid()
    new = (value + (reset + for_reset).sigmoid() * inner).tanh()
    state = new + update * (start - new)
    arriving = (state * (gradient.double().sum(0) + of_state.double())).sum()
    expected = torch.autograd.grad(arriving, [own, share, start])
    gates, new_state, kept = given.clone(), torch.empty(5, 19), torch.empty(5, 19)
    hidden = torch.empty(5, 19).to(dtype)
    of_given, of_recurrent = (torch.empty(5, 3 * 19).to(dtype) for _ in range(2))
    found.gru_forward(gates, recurrent, bias, before, new_state, hidden, kept)
    found.gru_backward(
        gates, kept, before, gradient[0], gradient[1], of_state, of_given, of_recurrent
    )
    pairs = zip((of_given, of_recurrent, of_state), expected, strict=True)
    return {
        "gru_forward": max(_error(new_state, state), _error(hidden, state)),
        "gru_backward": max(_error(mine, exact) for mine, exact in pairs),
    }


def _error(found: Tensor, exact: Tensor) -> float:
    exact = exact.detach()
    return float((found.double() - exact).abs().max() / exact.abs().max())


def main() -> None:
    """Check the library that is named."""
    library = Kernels(Path(sys.argv[1]))
    for dtype, largest in LARGEST_ERROR.items():
        errors = worst_errors(library, dtype)
        name = max(errors, key=errors.__getitem__)
        if not errors[name] <= largest:
            sys.exit(f"{name} is off by {errors[name]:.1e} in {str(dtype).removeprefix('torch.')}")


if __name__ == "__main__":
    main()
