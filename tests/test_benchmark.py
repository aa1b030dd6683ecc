"""The speed benchmark compares like with like, and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import VOCABULARY, make_batch, random_sentences, small_model

from uncollapse.config import ObjectiveConfig
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import EOS, Tokenizer
from uncollapse.distributions.gaussian import standard_normal
from uncollapse.evaluation.likelihood import score_sentences
from uncollapse.evaluation.passes import streams
from uncollapse.model import Model
from uncollapse.objectives.objective import Objective
from uncollapse.objectives.schedules import Progress

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import plain_reference  # noqa: E402

SIZES = ("encoder.embedding_dim=5", "encoder.hidden_dim=8")  # those of the small decoder
SEED = 3


@pytest.fixture
def model() -> Model:
    return small_model("vae", SIZES)


@pytest.fixture
def plain(model: Model) -> plain_reference.PlainVAE:
    plain = plain_reference.PlainVAE(VOCABULARY, 5, 8, model.latent_dim)
    plain.load_from(model)
    return plain


def test_plain_reference_has_our_loss_and_gradients(
    model: Model, plain: plain_reference.PlainVAE
) -> None:
    batch = make_batch(random_sentences(6))
    torch.manual_seed(0)  # both draw the same noise
    expected = plain.loss(batch)
    torch.manual_seed(0)
    objective = Objective(ObjectiveConfig())
    loss = objective(model(batch), batch.total, Progress(0, 1)).total
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    other = plain_reference.PlainVAE(VOCABULARY, 5, 8, model.latent_dim)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.data = parameter.grad
    other.load_from(model)  # gradients, by the names that the weights go by
    for found, parameter in zip(other.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.data, parameter.grad, rtol=1e-4, atol=1e-6)


def test_plain_reference_has_our_likelihood(model: Model, plain: plain_reference.PlainVAE) -> None:
    words = [f"w{i}" for i in range(VOCABULARY - 4)]
    tokenizer = Tokenizer.train([" ".join(words)], "whitespace", None)
    texts = [" ".join(words[i - 4] for i in sentence) for sentence in random_sentences(4)]
    corpus = Corpus.from_texts(texts, tokenizer)
    ours = score_sentences(model, corpus, samples=130, seed=SEED).log_likelihood
    assert ours is not None
    for row in range(len(corpus)):
        batch = make_batch([corpus.sentence(row).tolist()])
        noise = standard_normal(streams(SEED, torch.tensor([row])), 130, model.latent_dim)[
            0
        ].float()
        expected = plain_reference.importance_weighted(plain, batch.tokens, noise)
        assert ours[row] == pytest.approx(expected, abs=1e-4)


def test_plain_reference_samples_end(plain: plain_reference.PlainVAE) -> None:
    """Rows end at </s> or at the limit, whether or not finished rows leave the batch."""
    z = torch.randn(50, plain.to_state.in_features)
    for drop_finished in (False, True):
        torch.manual_seed(0)
        written = plain_reference.sample(plain, z, 6, drop_finished=drop_finished)
        lengths = {len(words) for words in written}
        assert len(written) == 50
        assert max(lengths) <= 6
        assert len(lengths) > 1
        assert not any(EOS in words for words in written)


@pytest.mark.slow
def test_benchmark_runs(tmp_path: Path) -> None:
    """From beginning to end at toy sizes; of the figures, only that they are there."""
    command = [sys.executable, BENCHMARKS / "speed.py", "--tiny", "--json", tmp_path / "out.json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # other tests may run beside this one
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads((tmp_path / "out.json").read_text())["rounds"]
    assert {name: len(variants) for name, variants in rounds.items()} == {
        "training": 4,
        "likelihood": 3,
        "sampling": 4,
    }
    for variants in rounds.values():
        for turns in variants.values():
            assert all(turn["count"] > 0 and turn["peak_mb"] > 0 for turn in turns)
    nll = {variant: turns[0]["figure"] for variant, turns in rounds["likelihood"].items()}
    assert nll["uncollapse f32"] == pytest.approx(nll["plain, one sentence at a time"], abs=1e-3)
    assert "uncollapse bf16" in done.stdout
