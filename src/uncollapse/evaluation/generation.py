"""Does the model's prior write sentences like the real ones? Probes of generated text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from uncollapse.config import Recipe
from uncollapse.data.corpus import Corpus, CorpusReport
from uncollapse.data.tokenizer import UNK, Tokenizer
from uncollapse.decoders.generation import generate
from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.passes import Progress, check_seed, evaluating
from uncollapse.evaluation.reverse_perplexity import PERPLEXITIES, perplexities
from uncollapse.evaluation.text_statistics import (
    DISTINCT_SENTENCES,
    SELF_BLEU_SENTENCES,
    Sentences,
    copied,
    count_words,
    distinct,
    self_bleu,
    unknown_share,
    word_kl,
)
from uncollapse.model import Model

GENERATION = (
    *PERPLEXITIES,
    "word_kl",
    "distinct_1",
    "distinct_2",
    "sample_unknown_rate",
    "self_bleu",
    "copied",
)


def generation_probes(
    model: Model,
    tokenizer: Tokenizer,
    train: Corpus,
    test: Corpus,
    *,
    metrics: Sequence[str] | None = None,
    samples: int = 10_000,
    greedy: bool = False,
    seed: int = 0,
    language_model: Recipe | None = None,
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """Write sentences from the prior and hold them against real ones.

    Neither the model's mode nor the global random state matters or is changed.

    Parameters
    ----------
    model : Model
        Also a language model, and an autoencoder with z from the prior that it never saw. One
        that is told of contexts writes for an empty one, as for the first turns of dialogues.
    tokenizer : Tokenizer
        The model's.
    train, test : Corpus
        Encoded with ``tokenizer``; what the model was trained on, and what it has not seen.
    metrics : sequence of str, optional
        Only these of ``GENERATION``; each has the value that it has among all.
    samples : int
        Sentences to write, each cut at the length of the longest training sentence.
    greedy : bool
        Take the most probable word each time, as the papers do, in place of draws from
        p(x|z). The text is then more uniform than the model's distribution.
    seed : int
        Of z, of the words, and of the language models.
    language_model : Recipe, optional
        Behind the perplexities; by default a small LSTM.
    progress : callable, optional
        Told what is computed, how much of it is done, and how much there is.

    Returns
    -------
    dict of str to Metric
        In the order of ``GENERATION``. The estimators also say what the same number of test
        sentences would get.

    Raises
    ------
    UserError
        For an unknown metric, a negative seed, fewer than two samples or training sentences,
        or no test sentence.
    """
    _check(samples, train, test, metrics)
    longest = train.longest
    sentences = draw_sentences(model, samples, longest, greedy=greedy, seed=seed)
    source = "" if model.context is None else "in an empty context, "
    if model.latent_dim:
        source += "z from the prior, "
    words = "the most probable words" if greedy else "words drawn one by one"
    return probe_sentences(
        sentences,
        tokenizer,
        train,
        test,
        origin=f"{source}{words}, at most {longest:,} of them",
        metrics=metrics,
        seed=seed,
        language_model=language_model,
        device=next(model.parameters()).device,
        progress=progress,
    )


def draw_sentences(
    model: Model, samples: int, max_length: int, *, greedy: bool = False, seed: int = 0
) -> Sentences:
    """Sentences from z ~ p(z): greedy ones, or draws from p(x|z)."""
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    with evaluating(model):
        z = model.sample_prior(samples, generator)  # (N, D)
        return generate(
            model.decoder,
            z,
            rows=samples,
            method="greedy" if greedy else "sample",
            max_length=max_length,
            generator=generator,
        )


def probe_sentences(
    sentences: Sentences,
    tokenizer: Tokenizer,
    train: Corpus,
    test: Corpus,
    *,
    origin: str,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    language_model: Recipe | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """The probes of `generation_probes` on any sentences.

    Parameters
    ----------
    sentences : list of list of int
        Token ids; a sentence may be empty.
    origin : str
        Where they come from, in words, for the estimators.
    """
    _check(len(sentences), train, test, metrics)
    wanted = set(GENERATION if metrics is None else metrics)
    result: dict[str, Metric] = {}
    if wanted & set(PERPLEXITIES):
        result |= perplexities(
            corpus_of_ids(sentences),
            train,
            test,
            len(tokenizer),
            wanted=wanted,
            recipe=language_model,
            seed=seed,
            device=device,
            progress=progress,
        )
    size = min(DISTINCT_SENTENCES, len(sentences))
    probes: dict[str, Callable[[Sentences], Metric]] = {
        "word_kl": lambda found: word_kl(found, count_words(train, len(tokenizer))),
        "distinct_1": lambda found: distinct(found, 1, size),
        "distinct_2": lambda found: distinct(found, 2, size),
        "sample_unknown_rate": unknown_share,
        "self_bleu": lambda found: self_bleu(found, min(SELF_BLEU_SENTENCES, size)),
        "copied": lambda found: copied(found, train),
    }
    real = [test.sentence(i).tolist() for i in range(min(len(sentences), len(test)))]
    for name in probes.keys() & wanted:
        result[name] = _beside_real(probes[name], sentences, real)
    written = f"{len(sentences):,} samples: {origin}, seed {seed}"
    for name in result.keys() - {"reverse_ppl_real"}:  # it has seen no sample
        metric = result[name]
        if metric.value is not None:
            result[name] = replace(metric, estimator=f"{metric.estimator}; {written}")
    return {name: result[name] for name in GENERATION if name in result}


def corpus_of_ids(sentences: Sentences) -> Corpus:
    """A corpus of token ids, empty sentences included."""
    lengths = [len(sentence) for sentence in sentences]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.array([word for sentence in sentences for word in sentence], np.uint32)
    unknown = int(np.count_nonzero(tokens == UNK))
    report = CorpusReport(sentences=len(sentences), tokens=len(tokens), unknown=unknown)
    return Corpus(tokens, offsets, {}, report)


def _beside_real(
    probe: Callable[[Sentences], Metric], sentences: Sentences, real: Sentences
) -> Metric:
    """A probe of samples, which says what real sentences get; no figure is good by itself."""
    found = probe(sentences)
    if found.value is None:
        return found
    note = f"{len(real):,} test sentences have {probe(real).format()}"
    return replace(found, estimator=f"{found.estimator}; {note}")


def _check(samples: int, train: Corpus, test: Corpus, metrics: Sequence[str] | None) -> None:
    for name in metrics or ():
        if name not in GENERATION:
            raise unknown_name("metric", name, GENERATION)
    if samples < 2:
        raise UserError(f"samples must be at least 2, not {samples}")
    if len(train) < 2:
        raise UserError(f"the probes need at least 2 training sentences, not {len(train)}")
    if len(test) == 0:
        raise UserError("the test corpus has no sentences")
