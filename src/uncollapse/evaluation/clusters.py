"""What the clusters of a model are: their sizes, sentences, words, labels, and names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import UNK, Tokenizer
from uncollapse.errors import UserError
from uncollapse.evaluation.agreement import agreement_of
from uncollapse.evaluation.cluster_report import Cluster, Clusters
from uncollapse.evaluation.codes import (
    assignments,
    check_index,
    check_joint,
    choose_variable,
    parse_code,
    write_code,
)
from uncollapse.evaluation.keywords import MOST, distinctive_words, suggest_names
from uncollapse.evaluation.passes import PosteriorPass, check_seed, posterior_pass
from uncollapse.latents import COMPONENT
from uncollapse.latents.priors import Mixture
from uncollapse.model import Model

__all__ = [
    "Cluster",
    "Clusters",
    "assignments",
    "choose_variable",
    "find_clusters",
    "parse_code",
    "write_code",
]

CHUNK = 1024  # sentences whose densities under all components are alive at once


def find_clusters(
    model: Model,
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    variable: str | None = None,
    index: int | None = None,
    names: Mapping[str, str] | None = None,
    examples: int = 5,
    words: int = 8,
    seed: int = 0,
) -> Clusters:
    """Put every sentence where its most probable code is, and say what is there.

    A sentence is typical of a component of a mixture if the component's density at E_q z is
    high; of a value of a discrete latent if KL(q(c|x) ‖ mean q(c|x) of the cluster) is low.

    Parameters
    ----------
    model : Model
    corpus : Corpus
        Encoded with ``tokenizer``. Labels are those of its first column.
    tokenizer : Tokenizer
    variable : str, optional
        See `choose_variable`.
    index : int, optional
        Look at this one of the variable's indexes; without it, at all together.
    names : mapping, optional
        By written code, names that a person gave.
    examples, words : int
        Sentences of each kind, and words, a cluster at most. No text is twice in a list.
    seed : int
        Of the errors of the agreement with labels; nothing else is random.

    Raises
    ------
    UserError
        For an unknown variable or index, or joint codes that nearly every sentence has for
        itself.
    """
    check_seed(seed)
    for what, number in (("examples", examples), ("words", words)):
        if number < 1:
            raise UserError(f"{what} must be at least 1, not {number}")
    variable = choose_variable(model, variable)
    size = model.variable_sizes()[variable]
    check_index(index, size, variable)
    found = posterior_pass(model, corpus, seed=seed)
    assert found is not None
    codes, numbers = assignments(found.variables[variable], index)
    if index is None:
        check_joint(len(codes), len(corpus), size)
    counts = np.bincount(numbers)
    order = np.argsort(-counts, kind="stable")  # ties go by code
    codes, counts = codes[order], counts[order]
    numbers = np.argsort(order)[numbers]

    texts = [tokenizer.decode(corpus.sentence(row).tolist()) for row in range(len(corpus))]
    central = _centrality(model, found, variable, index, codes, numbers)
    log_q = found.variables[variable].double().amax(-1)  # (N, M)
    sure = (log_q.sum(1) if index is None else log_q[:, index]).exp().clamp(max=1).numpy()
    unknown = tokenizer.tokens[UNK]
    spoken = distinctive_words(texts, numbers, max(words, MOST), unknown=unknown)
    tallies = _tallies(corpus, numbers, len(codes))
    written = [write_code(tuple(code)) for code in codes.tolist()]
    suggestions = suggest_names(spoken, tallies, written)

    members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts)[:-1])
    labels = corpus.labels
    agreement = {}
    if labels is not None and (labels >= 0).any():
        agreement = agreement_of(labels, numbers, variable, index, seed=seed)
    clusters = [
        Cluster(
            code=tuple(codes[place].tolist()),
            size=len(rows),
            share=len(rows) / len(corpus),
            typical=[texts[row] for row in _best(rows, central, texts, examples)],
            confident=[
                (texts[row], float(sure[row])) for row in _best(rows, sure, texts, examples)
            ],
            words=spoken[place][:words],
            labels=tallies[place],
            suggestion=suggestions[place],
            name=(names or {}).get(written[place]),
        )
        for place, rows in enumerate(members)
    ]
    return Clusters(
        variable=variable,
        index=index,
        sentences=len(corpus),
        clusters=clusters,
        empty=size[1] ** codes.shape[1] - len(codes),
        agreement=agreement,
    )


def _centrality(
    model: Model,
    found: PosteriorPass,
    variable: str,
    index: int | None,
    codes: np.ndarray,
    numbers: np.ndarray,
) -> np.ndarray:
    """How typical every sentence is of its own code, ``(N,)``; higher is more."""
    latent = variable.removesuffix(COMPONENT)
    if latent != variable:
        scores = _densities(model, found, latent)  # (N, M, K)
        scores = scores if index is None else scores[:, index : index + 1]
        own = torch.from_numpy(codes[numbers])[..., None]
        return scores.gather(2, own).sum((1, 2)).numpy()
    log_q = found.variables[variable].double().log_softmax(-1)  # (N, M, K)
    log_q = log_q if index is None else log_q[:, index : index + 1]
    q = log_q.exp()
    place = torch.from_numpy(numbers)
    mean = torch.zeros(len(codes), *q.shape[1:], dtype=q.dtype).index_add_(0, place, q)
    log_mean = (mean / torch.bincount(place)[:, None, None]).log()
    gap = (log_q - log_mean[place]).masked_fill(q == 0, 0)  # 0 · ln 0 is 0
    return -(q * gap).sum((1, 2)).numpy()


def _densities(model: Model, found: PosteriorPass, latent: str) -> Tensor:
    """log p(E_q z_m | c_m = k) under the components of a mixture, ``(N, M, K)``."""
    prior = model.named_latents()[latent].prior
    assert isinstance(prior, Mixture)
    with torch.no_grad():
        parts = found.latents[latent].mean.split(CHUNK)
        return torch.cat([prior.component_log_prob(part).cpu() for part in parts])


def _tallies(corpus: Corpus, numbers: np.ndarray, clusters: int) -> list[dict[str, int]]:
    """How often every label is in every cluster, most frequent first."""
    labels = corpus.labels
    if labels is None:
        return [{} for _ in range(clusters)]
    counts = np.zeros((clusters, len(corpus.label_names)), np.int64)
    known = labels >= 0
    np.add.at(counts, (numbers[known], labels[known]), 1)
    return [
        {corpus.label_names[i]: int(row[i]) for i in np.argsort(-row, kind="stable") if row[i]}
        for row in counts
    ]


def _best(rows: np.ndarray, scores: np.ndarray, texts: list[str], count: int) -> list[int]:
    """At most so many of the rows, highest score first and every text once."""
    chosen: dict[str, int] = {}
    for row in rows[np.argsort(-scores[rows], kind="stable")]:
        chosen.setdefault(texts[row], int(row))
        if len(chosen) == count:
            break
    return list(chosen.values())
