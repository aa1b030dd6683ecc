"""Likelihoods whose decoder is computed in bf16: how far they are off, and that they say so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uncollapse import TextVAE
from uncollapse.data.corpus import Corpus
from uncollapse.data.grammar import assistant_grammar
from uncollapse.errors import UserError
from uncollapse.evaluation.likelihood import score_sentences
from uncollapse.evaluation.standard import evaluate

SAMPLES = 60
OVERRIDES = [
    "data.tokenizer=whitespace",
    "encoder.embedding_dim=32",
    "encoder.hidden_dim=64",
    "decoder.embedding_dim=32",
    "decoder.hidden_dim=64",
    "training.max_epochs=4",
    "training.batch_size=16",
    "training.optimizer=adam",
    "training.learning_rate=0.003",
]
ROUNDED = {"nll", "ppl", "reconstruction", "elbo", "ppl_elbo"}


def sentences(count: int, seed: int) -> list[str]:
    return [sentence.text for sentence in assistant_grammar().sample(count, seed)]


@pytest.fixture(scope="module")
def vae() -> TextVAE:
    found = TextVAE.from_recipe("vae", latent_dim=8, overrides=OVERRIDES)
    return found.fit(sentences(600, 0), validation=sentences(60, 1), progress=False)


@pytest.fixture(scope="module")
def corpus(vae: TextVAE) -> Corpus:
    return Corpus.from_texts(sentences(40, 2), vae.tokenizer)


def test_bf16_errs_by_little(vae: TextVAE, corpus: Corpus) -> None:
    exact, rounded = (
        score_sentences(vae.model, corpus, samples=SAMPLES, precision=precision)
        for precision in ("f32", "bf16")
    )
    assert exact.log_likelihood is not None
    assert rounded.log_likelihood is not None
    assert exact.log_likelihood.mean() > -50  # it has learned something: chance is −90
    errors = np.abs(rounded.log_likelihood - exact.log_likelihood)
    assert 0 < errors.max() < 0.05
    assert np.abs(rounded.reconstruction - exact.reconstruction).max() < 0.05


def test_bf16_is_named_beside_every_figure_that_it_touches(vae: TextVAE, corpus: Corpus) -> None:
    exact = evaluate(vae.model, corpus, vae.tokenizer, samples=5)
    rounded = evaluate(vae.model, corpus, vae.tokenizer, samples=5, precision="bf16")
    for name, metric in rounded.items():
        assert ("bf16 decoder" in metric.estimator) == (name in ROUNDED), name
        assert "bf16" not in exact[name].estimator
        if name not in ROUNDED:
            assert metric == exact[name]
    assert exact == evaluate(vae.model, corpus, vae.tokenizer, samples=5, precision="f32")


@pytest.mark.parametrize("recipe", ["lstm-lm", "autoencoder"])
def test_bf16_is_named_where_nothing_is_drawn(recipe: str, vae: TextVAE, corpus: Corpus) -> None:
    other = TextVAE.from_recipe(recipe, overrides=["decoder.hidden_dim=8"])
    torch.manual_seed(0)
    model = type(vae.model)(other.recipe, len(vae.tokenizer))
    found = evaluate(
        model, corpus, vae.tokenizer, metrics=["reconstruction", "nll"], precision="bf16"
    )
    assert ", bf16 decoder; " in found["reconstruction"].estimator
    if recipe == "lstm-lm":
        assert found["nll"].estimator.startswith("exact, bf16 decoder; ")


def test_an_unknown_precision_is_refused(vae: TextVAE, corpus: Corpus) -> None:
    with pytest.raises(UserError, match=r"precision 'bf61'.*did you mean 'bf16'"):
        score_sentences(vae.model, corpus, precision="bf61")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="precision 'f16'"):
        # before anything is computed, even where no likelihood is asked for
        vae.evaluate(["hello"], ["active_units"], precision="f16")  # type: ignore[arg-type]
