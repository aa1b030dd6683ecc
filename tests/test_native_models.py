"""Models with the optional kernels compute what they compute without."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from decoder_variants import DIM, make_decoder
from helpers import make_batch, random_sentences, small_model, small_recipe
from native_support import without_kernels
from test_golden import GOLDEN, loss_of
from test_recurrent import by_pytorch, gradients, make_case, of_lengths, of_words
from torch import Tensor
from training_support import BATCHES, SignalAt, last_payload, same, train
from training_support import small_recipe as run_recipe

from uncollapse import time_loops
from uncollapse.decoders import token_loss
from uncollapse.decoders.generation import generate
from uncollapse.decoders.token_loss import token_nll
from uncollapse.encoders.attention import SHORT, look, rotation
from uncollapse.objectives import Objective, Progress
from uncollapse.recipes import recipe_names
from uncollapse.recurrent import run, skips_padding
from uncollapse.training.signals import Interrupted

RECURRENT = ["lstm", "gru"]


@pytest.fixture(autouse=True)
def _with_kernels(used: Counter[str]) -> Iterator[None]:
    yield
    assert used, "no kernel was called"


def autocast(on: bool) -> torch.autocast | nullcontext[None]:
    return torch.autocast("cpu", dtype=torch.bfloat16) if on else nullcontext()


def distance(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).detach().norm() / exact.detach().norm().clamp(min=1e-12))


# --- losses and gradients -----------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_no_loss_moves(name: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert loss_of(name) == pytest.approx(golden[name], rel=2e-5)


def softmax_case(rows: int = 70, width: int = 12, words: int = 300) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    features, weight = torch.randn(rows, width), torch.randn(words, width)
    return features.requires_grad_(), weight.requires_grad_(), torch.randint(words, (rows,))


def of_token_nll(case: tuple[Tensor, ...], scale: Tensor, *, narrow: bool = False) -> list[Tensor]:
    """Losses, and the gradients of features and weight."""
    features, weight, targets = case
    with autocast(narrow):
        nll = token_nll(features, weight, targets)
    return [nll.detach(), *torch.autograd.grad((nll * scale).sum(), [features, weight])]


@pytest.mark.parametrize("rows", [1, 63, 64, 70])
def test_gradients_of_the_softmax(rows: int) -> None:
    case, scale = softmax_case(rows), torch.rand(rows)
    found = of_token_nll(case, scale)
    with without_kernels():
        expected = of_token_nll(case, scale)
    for own, right in zip(found, expected, strict=True):
        assert distance(own, right) < 1e-6


def test_gradients_of_the_softmax_in_mixed_precision(used: Counter[str]) -> None:
    case, scale = softmax_case(), torch.rand(70)
    found = of_token_nll(case, scale, narrow=True)
    assert used["softmax_gradient"] == 1
    with without_kernels():
        exact, rounded = of_token_nll(case, scale), of_token_nll(case, scale, narrow=True)
    features, weight, targets = case
    with autocast(True):
        logits = features @ weight.t()
    eager = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    theirs = torch.autograd.grad((eager * scale).sum(), [features, weight])
    assert distance(found[0], rounded[0]) < 1e-5  # the rounding of the logits alone
    for own, other, right in zip(found[1:], theirs, exact[1:], strict=True):
        assert distance(own, right) < 1.5 * distance(other, right)


@pytest.mark.parametrize("narrow", [False, True], ids=["f32", "bf16"])
@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
def test_a_softmax_in_parts(equal: bool, narrow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = softmax_case(500)
    scale = torch.full((500,), 0.3) if equal else torch.rand(500)
    for way in (nullcontext(), without_kernels()):
        with way:
            whole = of_token_nll(case, scale, narrow=narrow)
            with monkeypatch.context() as patch:
                patch.setattr(token_loss, "ALIVE", 1)
                assert len(token_loss._parts(500, 300)) == 8
                parts = of_token_nll(case, scale, narrow=narrow)
        for own, right in zip(parts, whole, strict=True):
            assert own.dtype == right.dtype
            assert distance(own, right) < (4e-3 if narrow else 1e-6)


# sizes of loops in one call, and of others
WHOLE = [(3, 1, 5, 4), (7, 20, 11, 34), (30, 9, 3, 80), (256, 3, 2, 8)]
STEPS = [(1, 1, 1, 1), (7, 20, 11, 33), (257, 3, 2, 8)]


@pytest.mark.parametrize("sizes", WHOLE + STEPS, ids=str)
@pytest.mark.parametrize("kind", RECURRENT)
def test_gradients_of_a_recurrent_network(
    kind: str, sizes: tuple[int, int, int, int], used: Counter[str]
) -> None:
    case = make_case(kind, sizes, torch.float32)
    states = run(*case)
    exact = make_case(kind, sizes)
    for tensor, other in zip([exact[1], *exact[2]], [case[1], *case[2]], strict=True):
        tensor.data.copy_(other)
    exact[0].load_state_dict(case[0].state_dict())
    expected = by_pytorch(exact)
    assert distance(states.double(), expected) < 1e-6
    pairs = zip(gradients(states, case), gradients(expected, exact), strict=True)
    assert max(distance(own.double(), right) for own, right in pairs) < 1e-5
    ways = ["_loop_forward", "_loop_backward"] if sizes in WHOLE else ["_forward", "_backward"]
    assert set(used) == {kind + way for way in ways}


@pytest.mark.parametrize("sizes", [(9, 12, 5, 34), (40, 8, 3, 16), (9, 12, 5, 33), (1, 5, 2, 4)])
@pytest.mark.parametrize("kind", RECURRENT)
def test_padding_is_skipped(kind: str, sizes: tuple[int, int, int, int]) -> None:
    assert skips_padding(make_case(kind, sizes, torch.float32)[0]) == (sizes[3] % 2 == 0)
    for seed in range(3):
        of_lengths(kind, sizes, seed, torch.float32)


@pytest.mark.parametrize("narrow", [False, True], ids=["f32", "bf16"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_a_loop_in_one_call_and_one_in_steps(
    kind: str, narrow: bool, used: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(kind, (9, 12, 11, 70), torch.float32)
    for parameter in case[0].parameters():
        parameter.data.mul_(0.2)  # errors do not grow from step to step
    found = []
    for most in (70, 69):
        monkeypatch.setattr(time_loops, "MOST_UNITS", most)
        with autocast(narrow):
            states = run(*case)
        found.append([states.float(), *gradients(states, case)])
    counts = {"forward": 12, "backward": 12, "loop_forward": 1, "loop_backward": 1}
    assert used == {f"{kind}_{way}": count for way, count in counts.items()}
    assert all(distance(*pair) < (0.02 if narrow else 1e-5) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("width", [16, 17, 70])
@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrent_network_in_mixed_precision(kind: str, width: int) -> None:
    case = make_case(kind, (9, 20, 11, width), torch.float32)
    right = by_pytorch(case)
    exact = gradients(right, case)
    with autocast(True):
        states, rounded = run(*case), by_pytorch(case)
    assert states.dtype == torch.bfloat16
    assert distance(states.float(), right) < 1.5 * distance(rounded.float(), right)
    for own, theirs, wanted in zip(
        gradients(states, case), gradients(rounded, case), exact, strict=True
    ):
        assert own.dtype == wanted.dtype
        assert distance(own, wanted) < 1.5 * distance(theirs, wanted) + 1e-3


@pytest.mark.parametrize("kind", RECURRENT)
def test_types_of_words_are_projected_once(kind: str) -> None:
    found = of_words(kind, torch.float32, projected=True)
    expected = of_words(kind, torch.float32, projected=False)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with autocast(True):
        rounded = of_words(kind, torch.float32, projected=True)
    for own, right in zip(rounded, expected, strict=True):
        assert distance(own.float(), right) < 0.03


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_frozen_network_passes_gradients_on(kind: str) -> None:
    case = make_case(kind, dtype=torch.float32)
    case[0].requires_grad_(False)
    found = gradients(run(*case), case)
    torch.testing.assert_close(found, gradients(by_pytorch(case), case), atol=1e-5, rtol=1e-5)


# --- training -----------------------------------------------------------------------------


def after_updates(name: str, count: int, *, narrow: bool) -> tuple[dict[str, Tensor], float]:
    """Parameters after some steps, and how far they went."""
    model = small_model(name).train()
    objective = Objective(small_recipe(name).objective)
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9)
    start = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    for step in range(count):
        torch.manual_seed(step)
        batch = make_batch(random_sentences(8, seed=step))
        with autocast(narrow):
            terms = model(batch, 0.5)
        loss = objective(terms, 8, Progress(2500, 500)).total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    end = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return model.state_dict(), float((end - start).norm())


@pytest.mark.parametrize("narrow", [False, True], ids=["f32", "bf16"])
@pytest.mark.parametrize("name", ["vae", "gru-vae"])
def test_thirty_updates_lead_to_the_same_parameters(name: str, narrow: bool) -> None:
    found, _ = after_updates(name, 30, narrow=narrow)
    with without_kernels():
        expected, moved = after_updates(name, 30, narrow=narrow)
    assert moved > 1
    away = sum(float((found[key] - right).square().sum()) for key, right in expected.items())
    assert away**0.5 < (0.05 if narrow else 1e-5) * moved


@pytest.mark.parametrize("settings", [[], ["training.precision=bf16"], ["decoder.kind=gru"]])
def test_a_stopped_run_goes_on_to_the_same_bits(settings: list[str], tmp_path: Path) -> None:
    recipe = run_recipe("training.max_epochs=3", *settings)
    whole, _ = train(tmp_path / "whole", recipe)
    with pytest.raises(Interrupted):
        train(tmp_path / "part", recipe, callbacks=[SignalAt(BATCHES + 3, signal.SIGTERM)])
    model, _ = train(tmp_path / "part", recipe, resume=True)
    assert same(model.state_dict(), whole.state_dict())
    assert same(last_payload(tmp_path / "part"), last_payload(tmp_path / "whole"))


# --- attention ----------------------------------------------------------------------------


@pytest.mark.parametrize("narrow", [False, True], ids=["f32", "bf16"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("steps", [1, 16, SHORT])
def test_what_positions_see(steps: int, causal: bool, narrow: bool, used: Counter[str]) -> None:
    """Values and gradients, also of sentences that lie apart in memory."""
    torch.manual_seed(0)
    exact = torch.randn(2, steps, 3, 6, 5, dtype=torch.float64).transpose(3, 4)
    arriving = torch.randn(2, steps, 6, 5, dtype=torch.float64).transpose(2, 3)
    visible = None if causal else torch.rand(2, steps) < 0.7
    if visible is not None:
        visible[:, 0] = True

    def results(dtype: torch.dtype) -> list[Tensor]:
        parts = exact.to(dtype).requires_grad_()
        turn = rotation(torch.arange(steps)[None, None], 6, parts)
        seen = look(parts, turn, visible)
        return [seen, *torch.autograd.grad(seen, parts, arriving.to(dtype))]

    expected = results(torch.float64)
    assert not used
    found = results(torch.bfloat16 if narrow else torch.float32)
    assert used["attention_forward"] == used["attention_backward"] == 1
    for own, right in zip(found, expected, strict=True):
        assert distance(own, right) < (1e-2 if narrow else 1e-6)


@pytest.mark.parametrize("narrow", [False, True], ids=["f32", "bf16"])
def test_gradients_of_transformers(narrow: bool, used: Counter[str]) -> None:
    """With a mixed-length batch, and with one that has longer sentences than kernels are for."""
    model = small_model("transformer-vae")
    for longest in (7, SHORT + 1):
        sentences = [*random_sentences(3), [5] * longest]
        batch, ways = make_batch(sentences), []
        for way in (nullcontext(), without_kernels()):
            torch.manual_seed(3)
            with way, autocast(narrow):
                loss = model(batch, 0.5).reconstruction.sum()
            ways.append(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))
            assert bool(used["attention_backward"]) == (longest < SHORT)
        for own, right in zip(*ways, strict=True):
            if own is not None:
                assert distance(own, right) < (0.05 if narrow else 1e-5)
        used.clear()
    used["none for the longest"] += 1


# --- evaluation ---------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["lstm", "gru", "rnn", "transformer", "cnn", "lstm skip"])
def test_the_same_words_are_written(variant: str) -> None:
    decoder = make_decoder(variant)
    z = torch.randn(40, DIM, generator=torch.Generator().manual_seed(0))

    def write() -> list[list[list[int]]]:
        ways = [{"method": "greedy"}, {}, {"temperature": 0.6}, {"top_p": 0.8}]
        ways.append({"temperature": 1.5, "top_p": 0.5})
        return [
            generate(
                decoder,
                z,
                max_length=15,
                generator=torch.Generator().manual_seed(7),
                **({"method": "sample"} | way),
            )
            for way in ways
        ]

    found = write()
    with without_kernels():
        assert write() == found
    assert len({str(sentences) for sentences in found}) == len(found)


@pytest.mark.parametrize("narrow", [False, True], ids=["f32", "bf16"])
@pytest.mark.parametrize("variant", ["lstm", "gru", "rnn", "transformer"])
def test_likelihoods_of_many_samples(variant: str, narrow: bool, used: Counter[str]) -> None:
    decoder, batch = make_decoder(variant), make_batch(random_sentences(7))
    z = torch.randn(7, 11, DIM, generator=torch.Generator().manual_seed(0))

    def score(narrow: bool) -> Tensor:
        with autocast(narrow):
            return decoder.log_prob_samples(z, batch)

    found = score(narrow)
    assert used["log_likelihood"]
    assert bool(used["lstm_forward"]) == (variant == "lstm")
    with without_kernels():
        exact, other = score(False), score(narrow)
    if narrow:
        assert distance(found, exact) < 1.5 * distance(other, exact) + 1e-4
    else:
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-5)


def test_training_and_evaluation_agree() -> None:
    """The two ways to the same likelihood, both through kernels."""
    decoder, batch = make_decoder("lstm"), make_batch(random_sentences(7))
    z = torch.randn(7, DIM, generator=torch.Generator().manual_seed(0))
    scores = decoder.log_prob(z, batch).double()
    sampled = decoder.log_prob_samples(z[:, None], batch)[:, 0]
    torch.testing.assert_close(scores, sampled, rtol=1e-5, atol=1e-5)


def test_double_precision_takes_pytorchs_way(used: Counter[str]) -> None:
    batch = make_batch(random_sentences(5))
    for variant in RECURRENT:
        decoder = make_decoder(variant).double()
        z = torch.randn(5, DIM, dtype=torch.float64)
        decoder.log_prob(z, batch).sum().backward()
        decoder.log_prob_samples(z[:, None], batch)
        generate(decoder, z, max_length=4)
    assert not used
    make_decoder("lstm").log_prob(torch.randn(5, DIM), batch)
    assert used["softmax_gradient"]
