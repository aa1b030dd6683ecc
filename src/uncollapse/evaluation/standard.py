"""The standard figures of a model on a corpus, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import UNK, Tokenizer
from uncollapse.distributions.base import tensors_of
from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation import likelihood_figures
from uncollapse.evaluation.information import MI, active_units, mutual_information
from uncollapse.evaluation.likelihood import ELBO_SAMPLES, score_sentences
from uncollapse.evaluation.likelihood_figures import FITTED, NO_LATENT
from uncollapse.evaluation.metric import Metric, no_figure, ratio_over_sentences
from uncollapse.evaluation.mixtures import mixture_metrics, mixture_names
from uncollapse.evaluation.paper_variants import has_learned_divergence, ivae, twr
from uncollapse.evaluation.passes import (
    PosteriorPass,
    Precision,
    Progress,
    check_precision,
    has_step_divergence,
    posterior_pass,
    prior_scale,
)
from uncollapse.evaluation.reconstruction import DEFINITION as BLEU
from uncollapse.evaluation.reconstruction import reconstruction_bleu
from uncollapse.model import Model

STANDARD = (
    "reconstruction",
    "kl",
    "elbo",
    "nll",
    "ppl",
    "mi",
    "active_units",
    "bleu",
    "ppl_elbo",
    "unknown_rate",
)
TWR = ("nll_twr", "ppl_twr")
IVAE = ("nll_ivae", "kl_ivae", "mi_ivae")
RELATIVE = "z from its context's prior mean on, in that prior's standard deviations"
ABSOLUTE = "also what z owes to the context"  # of a flow, which has no other coordinates
INFORMATION_SENTENCES = 10_000  # mutual information costs N²


def metric_names(model: Model) -> tuple[str, ...]:
    """The figures that :func:`evaluate` gives for a model, in their order."""
    twr = TWR if has_step_divergence(model) else ()
    dual = IVAE if has_learned_divergence(model) else ()
    return STANDARD + twr + dual + mixture_names(model)


def evaluate(
    model: Model,
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    metrics: Sequence[str] | None = None,
    samples: int = 500,
    seed: int = 0,
    batch_size: int = 32,
    sentences: int | None = None,
    precision: Precision = "f32",
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """Measure a model; every figure says how.

    Nothing depends on batch size, on the mode that the model is in, or on the global random
    state, and nothing of these is changed.

    Parameters
    ----------
    model : Model
    corpus : Corpus
        Encoded with ``tokenizer``.
    tokenizer : Tokenizer
    metrics : sequence of str, optional
        Only these of :func:`metric_names`; each has the value that it has among all.
    samples : int
        Importance samples a sentence, S.
    seed : int
        Of all draws.
    batch_size : int
        Sentences encoded together.
    sentences : int, optional
        Only the first so many.
    precision : {"f32", "bf16"}
        Of the decoder where likelihoods are computed, see `score_sentences`; all else is f32.
    progress : callable, optional
        Told what is computed, sentences done, and sentences in all.

    Returns
    -------
    dict of str to Metric
        In the order of :func:`metric_names`. A figure that the model does not have is there,
        with value None.

    Raises
    ------
    UserError
        For an unknown metric or precision, or sizes below 1.
    RunError
        If a sentence's log-probability is not finite.
    """
    known = metric_names(model)
    for name in metrics or ():
        if name not in known:
            raise unknown_name("metric", name, known)
    check_precision(precision)
    wanted = set(known if metrics is None else metrics)
    if samples < 1:
        raise UserError(f"samples must be at least 1, not {samples}")
    if sentences is not None:
        if sentences < 1:
            raise UserError(f"sentences must be at least 1, not {sentences}")
        corpus = corpus.head(sentences)

    result: dict[str, Metric] = {}
    found = None
    if wanted - {"nll", "ppl", "reconstruction", "unknown_rate"}:
        found = posterior_pass(model, corpus, batch_size=batch_size, seed=seed, progress=progress)
    if wanted & {"reconstruction", "elbo", "nll", "ppl", "ppl_elbo"}:
        if not wanted & {"nll", "ppl"}:
            samples = min(samples, ELBO_SAMPLES)
        result |= _likelihoods(model, corpus, found, samples, seed, batch_size, precision, progress)
    if "kl" in wanted:
        values = None if found is None else _total_kl(found)
        result["kl"] = (
            likelihood_figures.kl(None, NO_LATENT)
            if found is None
            else likelihood_figures.kl(
                values, likelihood_figures.no_kl(found), found.kl_samples, found.fitted
            )
        )
    if wanted & {"mi", "active_units"}:
        result |= _information(found, seed, model)
    if "bleu" in wanted:
        result["bleu"] = (
            no_figure("BLEU", NO_LATENT, BLEU)
            if found is None
            else reconstruction_bleu(model, corpus, tokenizer, found)
        )
    if "unknown_rate" in wanted:
        result["unknown_rate"] = unknown_rate(corpus, tokenizer)
    if wanted & set(TWR) and found is not None:
        result |= twr(model, corpus, found, batch_size=batch_size, progress=progress)
    if wanted & set(IVAE):
        result |= ivae(model, corpus, seed=seed, batch_size=batch_size, progress=progress)
    if wanted & set(mixture_names(model)) and found is not None:
        result |= mixture_metrics(model, corpus, found)
    return {name: result[name] for name in known if name in wanted}


def unknown_rate(corpus: Corpus, tokenizer: Tokenizer) -> Metric:
    """Share of words that are the unknown word: no likelihood compares across vocabularies."""
    unknown = np.add.reduceat(np.asarray(corpus.tokens) == UNK, corpus.offsets[:-1], dtype=np.int64)
    value, error = ratio_over_sentences(unknown, corpus.lengths)
    estimator = f"exact; {int(corpus.lengths.sum()):,} words, vocabulary of {len(tokenizer):,}"
    definition = "share of words that are the unknown word"
    return Metric(value, "share", error, estimator, len(corpus), definition)


def _likelihoods(
    model: Model,
    corpus: Corpus,
    found: PosteriorPass | None,
    samples: int,
    seed: int,
    batch_size: int,
    precision: Precision,
    progress: Progress | None,
) -> dict[str, Metric]:
    scores = score_sentences(
        model,
        corpus,
        samples=samples,
        seed=seed,
        batch_size=batch_size,
        precision=precision,
        progress=progress,
    )
    # a language model has nothing to charge: its ELBO is its likelihood
    kl = np.zeros(len(corpus)) if found is None else _total_kl(found)
    kl_samples = 0 if found is None else found.kl_samples
    return {
        "reconstruction": likelihood_figures.reconstruction(scores),
        "elbo": likelihood_figures.elbo(scores, kl, kl_samples),
        "nll": likelihood_figures.nll(scores),
        "ppl": likelihood_figures.ppl(scores),
        "ppl_elbo": likelihood_figures.ppl_elbo(scores, kl, kl_samples),
    }


def _total_kl(found: PosteriorPass) -> np.ndarray | None:
    return None if found.kl is None else found.kl.double().sum(1).numpy()


def _information(found: PosteriorPass | None, seed: int, model: Model) -> dict[str, Metric]:
    if found is None:
        definition = "dimensions whose posterior mean varies"
        return {
            "mi": no_figure("nats", NO_LATENT, MI),
            "active_units": no_figure("units", NO_LATENT, definition),
        }
    if found.kl is None:
        mi = no_figure("nats", likelihood_figures.no_kl(found), MI)
    else:
        count = len(found.means)
        # spread evenly: neighbours in a file are often alike
        rows = torch.linspace(0, count - 1, min(count, INFORMATION_SENTENCES)).round().long()
        mi = mutual_information(found.relative[rows], seed=seed)
        if found.fitted:
            mi = replace(mi, estimator=f"{mi.estimator}; {FITTED}")
    active = active_units(found.relative_means, prior_scale(model))
    if not torch.equal(found.means, found.relative_means):
        active = replace(active, estimator=f"{active.estimator}; {RELATIVE}")
        pairs = zip(tensors_of(found.posterior), tensors_of(found.relative), strict=True)
        how = ABSOLUTE if all(torch.equal(*pair) for pair in pairs) else RELATIVE
        if mi.value is not None:
            mi = replace(mi, estimator=f"{mi.estimator}; {how}")
    return {"mi": mi, "active_units": active}
