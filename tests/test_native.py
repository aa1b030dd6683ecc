"""The optional kernels as functions: what they compute, for what, and how they come to be."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_support import without_kernels
from torch import Tensor

from uncollapse.decoders import vocabulary
from uncollapse.errors import RunError, UserError
from uncollapse.native import Kernels, kernels, kernels_for, library
from uncollapse.native.check import LARGEST_ERROR, Sizes, worst_errors
from uncollapse.native.kernels import GATES
from uncollapse.native.library import build_library, library_path

both_types = pytest.mark.parametrize("dtype", list(LARGEST_ERROR), ids=["f32", "bf16"])


@pytest.fixture
def found(used: Counter[str]) -> Kernels:  # noqa: ARG001 (makes them found)
    library = kernels()
    assert library is not None
    return library


# --- values -------------------------------------------------------------------------------


@both_types
def test_errors_are_those_of_the_arithmetic(found: Kernels, dtype: torch.dtype) -> None:
    @settings(max_examples=30)
    @given(
        st.builds(
            Sizes,
            rows=st.integers(1, 9),
            words=st.sampled_from([1, 2, 7, 8, 17, 127, 128, 129, 1000]),
            width=st.integers(1, 40),
            scale=st.sampled_from([0.0, 0.1, 5.0, 50.0, 1e4]),
        ),
        st.integers(0, 2**31 - 1),
    )
    def check(sizes: Sizes, seed: int) -> None:
        errors = worst_errors(found, dtype, seed, sizes)
        assert max(errors.values()) <= LARGEST_ERROR[dtype], errors

    check()


@both_types
def test_every_function_is_tried(
    found: Kernels,
    used: Counter[str],
    dtype: torch.dtype,
) -> None:
    worst_errors(found, dtype)
    assert set(used) == {name for name, kind in found._functions if kind == dtype}


def test_equal_logits_are_a_uniform_distribution(found: Kernels) -> None:
    for level in (-1e4, 0.0, 1e4):
        logits, targets = torch.full((3, 1000), level), torch.tensor([0, 500, 999])
        expected = torch.full((3,), 1000.0).log()
        torch.testing.assert_close(found.log_likelihood(logits, targets), -expected)
        assert found.greatest(logits).tolist() == [0, 0, 0]
        uniforms = torch.tensor([0.0, 0.5, 1 - 2**-24])
        assert found.draw(logits, uniforms).tolist() == [0, 500, 999]
        assert found.draw(logits, uniforms, 1.0, 0.1).tolist() == [0, 500, 999]  # all tie
        torch.testing.assert_close(found.softmax_gradient_(logits, targets), expected)
        torch.testing.assert_close(logits.sum(1), torch.zeros(3), atol=1e-6, rtol=0)


def test_extreme_logits(found: Kernels) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0, -torch.inf], [-1e4, -1e4 - 20, -torch.inf, -2e4]])
    targets = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    exact = logits.double().log_softmax(1)
    for column in range(4):
        scores = found.log_likelihood(logits, targets[:, column])
        torch.testing.assert_close(scores.double(), exact[:, column], rtol=1e-6, atol=1e-8)
    nll = found.softmax_gradient_(logits, targets[:, 0])
    torch.testing.assert_close(nll.double(), -exact[:, 0], rtol=1e-6, atol=1e-8)
    assert logits.isfinite().all()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@both_types
def test_what_is_no_number_is_not_hidden(found: Kernels, dtype: torch.dtype, wrong: float) -> None:
    """A guard against steps that are no numbers looks at losses."""
    for words in (1, 5, 400):
        for place in {0, words // 2, words - 1}:
            logits = torch.randn(3, words).to(dtype)
            logits[1, place] = wrong
            targets = torch.tensor([0, words - 1, 0])
            broken = torch.tensor([False, True, False])
            assert torch.equal(found.log_likelihood(logits, targets).isnan(), broken)
            assert ((found.draw(logits, torch.rand(3), 0.5, 0.9) - words).lt(0)).all()
            assert torch.equal(found.softmax_gradient_(logits, targets).isnan(), broken)
    nothing = torch.full((1, 9), -torch.inf, dtype=dtype)
    assert found.log_likelihood(nothing, torch.zeros(1, dtype=torch.int64)).isnan().all()


def test_rows_may_lie_apart(found: Kernels) -> None:
    """Logits stand in a wider buffer."""
    torch.manual_seed(0)
    wide, targets, uniforms = torch.randn(6, 500), torch.randint(300, (6,)), torch.rand(6)
    part, whole = wide[:, :300], wide[:, :300].contiguous()
    assert torch.equal(found.log_likelihood(part, targets), found.log_likelihood(whole, targets))
    assert torch.equal(found.greatest(part), whole.argmax(1))
    for top_p in (1.0, 0.5):
        drawn = found.draw(part, uniforms, 0.8, top_p)
        assert torch.equal(drawn, found.draw(whole, uniforms, 0.8, top_p))


def test_no_rows_are_nothing(found: Kernels) -> None:
    logits, targets = torch.empty(0, 10), torch.empty(0, dtype=torch.int64)
    assert found.log_likelihood(logits, targets).shape == (0,)
    assert found.softmax_gradient_(logits, targets).shape == (0,)
    assert found.draw(logits, torch.empty(0)).shape == found.greatest(logits).shape == (0,)


# --- draws --------------------------------------------------------------------------------


def oracle_of_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Probabilities ``(V,)`` of a draw, by sorting; words as probable as the last stay in."""
    p = logits.double().softmax(0)
    ordered = p.sort(descending=True).values
    size = int((ordered.cumsum(0) - ordered < top_p - 1e-9).sum())
    kept = p * (p >= ordered[size - 1] * (1 - 1e-12))
    return kept / kept.sum()


@both_types
def test_nucleus_is_that_of_a_sort_with_ties(found: Kernels, dtype: torch.dtype) -> None:
    @settings(max_examples=40)
    @given(
        st.sampled_from([1, 3, 60, 128, 900]),
        st.sampled_from([0.05, 0.3, 0.6, 0.9, 0.999]),
        st.integers(1, 40),
        st.integers(0, 2**31 - 1),
    )
    def check(words: int, top_p: float, levels: int, seed: int) -> None:
        torch.manual_seed(seed)
        draws = 1500
        # few levels, so that many words tie
        logits = torch.randint(levels, (words,)).to(dtype) * (8 / levels)
        expected = oracle_of_nucleus(logits, top_p)
        uniforms = (torch.arange(draws) + 0.5) / draws
        chosen = found.draw(logits.expand(draws, -1).contiguous(), uniforms, 1.0, top_p)
        counts = torch.bincount(chosen, minlength=words)
        assert not counts[expected == 0].any()
        assert (counts - draws * expected).abs().max() <= 1.01
        assert (chosen.diff() >= 0).all()

    check()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.7)])
def test_draws_have_their_probabilities(found: Kernels, temperature: float, top_p: float) -> None:
    torch.manual_seed(0)
    draws, logits = 100_000, 1.5 * torch.randn(300)
    expected = draws * oracle_of_nucleus(logits / temperature, top_p)
    uniforms = torch.rand(draws, generator=torch.Generator().manual_seed(5))
    chosen = found.draw(logits.expand(draws, -1).contiguous(), uniforms, temperature, top_p)
    counts = torch.bincount(chosen, minlength=300)
    assert not counts[expected == 0].any()
    usual = expected > 5
    chi_square = ((counts - expected).square() / expected)[usual].sum().item()
    degrees = int(usual.sum()) - 1
    assert abs(chi_square - degrees) < 4.5 * (2 * degrees) ** 0.5


def test_draws_are_those_of_pytorchs_way(found: Kernels) -> None:
    torch.manual_seed(0)
    logits, uniforms = 2 * torch.randn(2000, 700), torch.rand(2000)
    for temperature, top_p in ((1.0, 1.0), (0.5, 1.0), (1e-4, 1.0), (1.0, 0.9), (2.0, 0.3)):
        drawn = found.draw(logits, uniforms, temperature, top_p)
        other = vocabulary._draw(logits.clone(), uniforms, temperature, top_p)
        # at a border of two words, rounding decides
        assert (drawn != other).sum() <= 2, (temperature, top_p)


def test_the_coldest_draw_is_the_greatest(found: Kernels) -> None:
    logits, uniforms = torch.randn(50, 200), torch.rand(50)
    for temperature in (1e-6, 1e-30, 1e-38, 1e-45, 1e-300):
        assert torch.equal(found.draw(logits, uniforms, temperature), logits.argmax(1))


def of_cells(found: Kernels, dtype: torch.dtype, width: int) -> list[Tensor]:
    """What the kernels make of recurrent networks, with blocks enough for several threads."""
    torch.manual_seed(1)
    rows, counts = 41, [41, 41, 30, 7]
    total = sum(counts)
    results = []
    for cell, count in GATES.items():
        across = count * width
        weight, bias = torch.randn(across, width).to(dtype), torch.randn(across)
        gates, inner = torch.randn(total, across), torch.empty(total, width)
        memory = torch.randn(rows + total, width)
        states, own = memory.to(dtype, copy=True), gates.to(dtype)
        of_given, of_recurrent = torch.empty_like(gates), own.clone()
        of_biases = torch.zeros(len(counts), across)
        of_hidden, of_memory = torch.empty(rows, width), torch.randn(rows, width)
        first, kept = gates[:rows].clone(), torch.empty(rows, width)
        before, after = memory[:rows], memory[rows : 2 * rows]
        left, entered = states[:rows], states[rows : 2 * rows]
        found.gates_forward(cell, first, own[:rows], bias, before, kept, after, entered)
        arriving = (left, entered, of_memory)
        outer, within = of_given[:rows], of_recurrent[:rows]
        found.gates_backward(cell, first, kept, before, *arriving, outer, within)
        step = [first, kept, memory, states, outer, within, of_memory]
        results += [array.clone() for array in step]
        starts = torch.tensor([0, *counts]).cumsum(0)
        found.loop_forward(cell, gates, weight, bias, inner, memory, states, starts)
        shares = (of_given, of_recurrent, of_biases)
        whole = (gates, inner, memory, states[rows:])
        found.loop_backward(cell, weight, *whole, *shares, of_hidden, of_memory, starts)
        results += [*whole, *shares, of_hidden, of_memory]
    return results


@both_types
def test_threads_change_no_bit(found: Kernels, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    logits, targets = torch.randn(41, 333).to(dtype), torch.randint(333, (41,))

    def everything() -> list[Tensor]:
        gradient = logits.clone()
        results = [
            found.softmax_gradient_(gradient, targets),
            found.log_likelihood(logits, targets),
            found.draw(logits, torch.linspace(0, 0.99, 41), 0.7, 0.8),
            found.greatest(logits),
        ]
        return [*results, gradient, *of_cells(found, dtype, 70), *of_cells(found, dtype, 96)]

    try:
        turns = []
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            turns.append(everything())
    finally:
        torch.set_num_threads(threads)
    for turn in turns[1:]:
        assert all(map(torch.equal, turn, turns[0]))


# --- which arrays, and which switch -------------------------------------------------------


def test_other_arrays_never_reach_them(found: Kernels) -> None:
    f32 = torch.zeros(1)
    assert kernels_for(f32, f32.bfloat16()) is found
    for other in (f32.double(), f32.half(), f32.long(), torch.zeros(1, device="meta")):
        assert kernels_for(f32, other) is None


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize("word", ["off", "OFF", "0", "no", "False"])
def test_the_environment_switches_them_off(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNCOLLAPSE_KERNELS", word)
    kernels.cache_clear()
    assert kernels() is None
    for on in ("on", "", "1", "Yes", "true"):
        monkeypatch.setenv("UNCOLLAPSE_KERNELS", on)
        kernels.cache_clear()
        assert kernels() is not None
    with without_kernels():
        assert kernels() is None


def test_a_misspelt_switch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNCOLLAPSE_KERNELS", "of")
    kernels.cache_clear()
    with pytest.raises(UserError, match=r"^UNCOLLAPSE_KERNELS is 'of'; it can be on or off$"):
        kernels()
    # before anything is read or written
    program = [sys.executable, "-c", "import uncollapse.model"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert "UserError: UNCOLLAPSE_KERNELS is 'of'" in done.stderr


# --- compiling ----------------------------------------------------------------------------


@pytest.fixture
def fresh(kernels_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001
    """An empty cache, where there is a compiler."""
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path))
    return tmp_path


def refused(folder: Path, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        build_library()
    assert "\n" not in str(caught.value)
    assert not [path for path in folder.rglob("*") if path.name != "kernels"]


def test_what_fails_its_check_is_not_kept(
    fresh: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = "return 1.0f / (1.0f + exponential(-x));"
    folder = tmp_path_factory.mktemp("source")
    for path in library.FOLDER.glob("*.[ch]pp"):
        text = path.read_text("utf-8")
        assert (right in text) == (path.name == "numbers.hpp")
        wrong = text.replace(right, "return 1.0f / (1.001f + exponential(-x));")
        (folder / path.name).write_text(wrong, "utf-8")
    monkeypatch.setattr(library, "FOLDER", folder)
    refused(fresh, RunError, r"fail their check: lstm_forward is off by \d\.\de-0\d in float32$")


def test_what_crashes_is_not_kept(
    fresh: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("source")
    (folder / "kernels.cpp").write_text("int nothing;", "utf-8")
    monkeypatch.setattr(library, "FOLDER", folder)
    refused(fresh, RunError, "fail their check: .*softmax_gradient_f32")
    monkeypatch.setattr(library, "_compile", lambda _, target: target.write_bytes(b"no library"))
    refused(fresh, RunError, "fail their check: .*cannot load the kernels")


def test_what_does_not_compile_is_an_error(
    fresh: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("source")
    (folder / "kernels.cpp").write_text("int main( {}\n", "utf-8")
    monkeypatch.setattr(library, "FOLDER", folder)
    refused(fresh, RunError, "cannot compile the kernels: .*kernels.cpp:1:.* error")


def test_a_lack_is_the_users_to_mend(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    refused(fresh, UserError, "CXX names a compiler 'no-such-compiler', which is not on the path")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(fresh))
    refused(fresh, UserError, r"none of c\+\+, g\+\+, clang\+\+ is on the path")
    monkeypatch.setattr(sys, "platform", "darwin")
    refused(fresh, UserError, "the kernels are for Linux")


def test_a_cache_that_cannot_be_written(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "kernels").write_text("a file")
    with pytest.raises(RunError, match=r"cannot write .*kernels-.*so"):
        build_library()
    assert kernels_of(fresh, monkeypatch) is None


def test_a_damaged_library_says_what_to_do(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library_path().parent.mkdir()
    library_path().write_bytes(b"no library")
    with pytest.raises(RunError, match=r"cannot load the kernels, .*`uncollapse kernels` compiles"):
        kernels_of(fresh, monkeypatch)
    kernels.cache_clear()


def test_each_source_and_processor_has_its_own(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = library_path()
    assert here.is_relative_to(fresh)
    monkeypatch.setattr(library, "_processor", lambda: "another")
    elsewhere = library_path()
    monkeypatch.setattr(library, "FOLDER", fresh)
    assert len({here, elsewhere, library_path()}) == 3


def kernels_of(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Kernels | None:
    """What a process that starts with this cache finds."""
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(cache))
    monkeypatch.setenv("UNCOLLAPSE_KERNELS", "on")
    kernels.cache_clear()
    try:
        return kernels()
    finally:
        kernels.cache_clear()
