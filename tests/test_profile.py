"""Layers get the time that they take, backward included, and add up to the step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import random_sentences

from uncollapse.config import Recipe
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.encoders.recurrent import RecurrentEncoder
from uncollapse.latents.divergences.kl import KLDivergence

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import profile_events  # noqa: E402
import profile_layers  # noqa: E402
import profile_page  # noqa: E402
import profile_settings  # noqa: E402
from profile_events import BOUNDARY, LAYER, Event  # noqa: E402

PAUSE = 0.02
STEPS = 3


@pytest.fixture(scope="module")
def corpus() -> tuple[Corpus, int]:
    texts = [" ".join(f"w{word}" for word in words) for words in random_sentences(80)]
    tokenizer = Tokenizer.train(texts, "whitespace", None)
    return Corpus.from_texts(texts, tokenizer), len(tokenizer)


def recipe(name: str = "vae") -> Recipe:
    sizes = profile_settings.Sizes(8, 8, 4, 8)
    return profile_settings.recipe_of(name, sizes)


class Pause(torch.autograd.Function):
    """Does nothing, and takes its time in the backward pass."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override] # noqa: ARG004
        time.sleep(PAUSE)
        return gradient


def test_every_moment_counts_once_for_the_innermost_range() -> None:
    events = [
        Event(BOUNDARY, -5, 0),
        Event(f"{LAYER}encoder", 10, 40),
        Event("aten::mm", 15, 30, sequence=1),
        Event(f"{LAYER}contexts", 50, 80),
        Event(f"{LAYER}encoder", 55, 65),
        Event("aten::add", 56, 58, sequence=2),
        Event("autograd::engine::evaluate_function: AddBackward0", 90, 100, 2, is_node=True),
        Event("autograd::engine::evaluate_function: AccumulateGrad", 101, 104, is_node=True),
        Event("autograd::engine::evaluate_function: MmBackward0", 110, 130, 1, is_node=True),
        Event("aten::mm", 112, 128),
        Event("Optimizer.step#Adam.step", 140, 150),
        Event(BOUNDARY, 160, 170),
        Event("aten::mm", 180, 190),
    ]
    found = profile_events.attribute(events, "outside")
    in_ns = {layer: round(1e9 * seconds) for layer, seconds in found.seconds.items()}
    assert in_ns == {
        "encoder": 30 + 20,
        "contexts": 20,
        "contexts/encoder": 10 + 10 + 3,
        "optimiser": 10,
        "outside": 160 - 103,
    }
    assert round(1e9 * found.operations["encoder", "aten::mm"]) == 15 + 16
    assert found.calls == {"encoder": 1, "contexts": 1, "contexts/encoder": 1}


def test_parts_add_up_to_the_step(corpus: tuple[Corpus, int], tmp_path: Path) -> None:
    facts, found = profile_layers.profile(recipe(), *corpus, tmp_path, STEPS)
    assert sum(facts["layers"].values()) == pytest.approx(facts["profiled_ms"], rel=0.05)
    assert sum(found.operations.values()) == pytest.approx(sum(found.seconds.values()))
    assert sum(profile_page.shares(facts).values()) == pytest.approx(1)
    assert facts["runs"] == {"encoder": 1, "decoder": 1}
    for layer in ("data", "encoder", "latents", "divergence", "decoder", "softmax", "clipping"):
        assert facts["layers"][layer] > 0, layer


def test_a_large_softmax_comes_first(corpus: tuple[Corpus, int], tmp_path: Path) -> None:
    facts, _ = profile_layers.profile(recipe(), corpus[0], 100_000, tmp_path, STEPS)
    shares = profile_page.shares(facts)
    assert max(shares, key=lambda column: shares[column]) == "softmax"


@pytest.mark.parametrize("layer", ["encoder", "divergence"])
def test_backward_passes_belong_to_their_layer(
    layer: str, corpus: tuple[Corpus, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layer == "encoder":
        read = RecurrentEncoder.forward

        def slow(self: RecurrentEncoder, batch: Any) -> Any:
            found = read(self, batch)
            found.summary = Pause.apply(found.summary)
            return found

        monkeypatch.setattr(RecurrentEncoder, "forward", slow)
    else:
        charge = KLDivergence.forward
        monkeypatch.setattr(
            KLDivergence, "forward", lambda self, found: Pause.apply(charge(self, found))
        )
    facts, found = profile_layers.profile(recipe(), *corpus, tmp_path, STEPS)
    assert {part for part, name in found.operations if name == "PauseBackward"} == {layer}
    assert facts["layers"][layer] >= 1e3 * PAUSE


def test_every_profiled_family_has_a_page() -> None:
    pages = {page.stem for page in (ROOT / "docs" / "families").glob("*.md")} - {"index"}
    assert {profiled.family for profiled in profile_settings.RECIPES.values()} == pages
    for name, profiled in profile_settings.RECIPES.items():
        text = (ROOT / "docs" / "families" / f"{profiled.family}.md").read_text("utf-8")
        (listed,) = [line for line in text.splitlines() if line.startswith("<!-- recipes: ")]
        assert name in listed.strip("<!-> ").removeprefix("recipes: ").split(", "), name


def test_the_page_is_made_from_the_results() -> None:
    found = json.loads(profile_page.RESULTS.read_text("utf-8"))
    text = profile_page.PAGE.read_text("utf-8")
    assert profile_page.filled(text, found) == text
    assert set(found["recipes"]) == set(profile_settings.RECIPES)


@pytest.mark.slow
def test_profile_runs(tmp_path: Path) -> None:
    """From beginning to end at toy sizes, for a recipe of every way to train."""
    names = ["vae", "lagging-vae", "sa-vae", "ivae", "dgm-vae"]
    command = [sys.executable, BENCHMARKS / "profile_layers.py", "--tiny", "--recipes", *names]
    done = subprocess.run(
        [*command, "--json", tmp_path / "out.json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # other tests may run beside this one
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    recipes = json.loads((tmp_path / "out.json").read_text("utf-8"))["recipes"]
    assert list(recipes) == names
    for facts in recipes.values():
        for precision in ("f32", "bf16"):
            assert sum(profile_page.shares(facts[precision]).values()) == pytest.approx(1)
    assert recipes["lagging-vae"]["f32"]["runs"] == {"encoder": 10, "decoder": 10}
    # one to charge, ten steps of descent, each of them twice again on the way back
    assert recipes["sa-vae"]["f32"]["runs"] == {"encoder": 1, "decoder": 31}
    assert recipes["ivae"]["f32"]["runs"] == {"encoder": 2, "decoder": 1}
