"""All figures by name: the standard ones, and the probes of text, labels and geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.device import check_seed
from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation.agreement import CLUSTERS, cluster_probes
from uncollapse.evaluation.classifier import SUPERVISED, supervised_baseline
from uncollapse.evaluation.dialogue import dialogue_probes
from uncollapse.evaluation.dialogue_figures import DIALOGUE, EMBEDDINGS
from uncollapse.evaluation.generation import GENERATION, generation_probes
from uncollapse.evaluation.geometry import GEOMETRY, geometry_probes
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.passes import Precision, Progress, check_precision
from uncollapse.evaluation.representation import REPRESENTATION, representation_probes
from uncollapse.evaluation.standard import evaluate, metric_names
from uncollapse.model import Model

# a group's name stands for all of its figures
PROBES = {
    "generation": GENERATION,
    "representation": REPRESENTATION,
    "supervised": SUPERVISED,
    "geometry": GEOMETRY,
    "clusters": CLUSTERS,
    "dialogue": DIALOGUE,
}
# they compare with training sentences, or learn from their labels
NEED_TRAINING = {"generation", "representation", "supervised", "dialogue"}


def probe(
    model: Model,
    tokenizer: Tokenizer,
    test: Corpus,
    *,
    train: Corpus | None = None,
    metrics: Sequence[str] | None = None,
    samples: int = 500,
    generated: int = 10_000,
    vectors: str | Path | None = None,
    greedy: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    precision: Precision = "f32",
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """Measure a model; every figure says how.

    Parameters
    ----------
    model : Model
    tokenizer : Tokenizer
    test : Corpus
        Sentences that the model has not seen, encoded with ``tokenizer``; with labels for the
        probes of representation, clusters and dialogue.
    train : Corpus, optional
        Training sentences, for the probes of generation, representation and dialogue.
    metrics : sequence of str, optional
        Figures, or groups of them: ``standard``, ``generation``, ``representation``,
        ``supervised``, ``geometry``, ``clusters``, ``dialogue``. By default the standard ones.
    samples : int
        Importance samples a sentence, S.
    generated : int
        Sentences that the generation probes write, and responses those of dialogue.
    vectors : path, optional
        Word vectors for the probes of dialogue; without it they are trained on ``train``.
    greedy : bool
        Whether the generation probes take the most probable words, as Shi et al. 2020 do; else
        words are drawn, as the model's distribution has them.
    seed : int
        Of all draws.
    batch_size : int
        Does not change the figures.
    precision : {"f32", "bf16"}
        Of the decoder in the likelihoods among the standard figures; all else is f32.
    progress : callable, optional
        Told what is computed, how much is done, and of how much.

    Returns
    -------
    dict of str to Metric
        In the order in which groups are named above.

    Raises
    ------
    UserError
        For an unknown name, or data that a figure needs and that is missing.
    """
    groups = {"standard": metric_names(model), **PROBES}
    names = check_request(model, metrics, samples=samples, generated=generated, vectors=vectors)
    check_seed(seed)
    check_precision(precision)
    whole = set(groups) & set(metrics or ["standard"])
    chosen: dict[str, Sequence[str] | None] = {}
    for group, members in groups.items():
        wanted = [name for name in members if name in names]
        if wanted:
            # of a whole group, a figure that the data cannot give is a dash, not an error
            chosen[group] = None if group in whole else wanted
            if group in NEED_TRAINING and train is None:
                raise UserError(f"{wanted[0]} needs training sentences; give them with --train")
    result: dict[str, Metric] = {}
    for group, wanted in chosen.items():
        if group == "standard":
            result |= evaluate(
                model,
                test,
                tokenizer,
                metrics=wanted,
                samples=samples,
                seed=seed,
                batch_size=batch_size,
                precision=precision,
                progress=progress,
            )
        elif group == "geometry":
            result |= geometry_probes(
                model,
                test,
                tokenizer,
                metrics=wanted,
                seed=seed,
                batch_size=batch_size,
                samples=samples,
                progress=progress,
            )
        elif group == "clusters":
            result |= cluster_probes(
                model, test, metrics=wanted, seed=seed, batch_size=batch_size, progress=progress
            )
        elif group == "representation":
            result |= representation_probes(
                model, train, test, metrics=wanted, seed=seed, progress=progress
            )
        elif train is not None and group == "generation":
            result |= generation_probes(
                model,
                tokenizer,
                train,
                test,
                metrics=wanted,
                samples=generated,
                greedy=greedy,
                seed=seed,
                progress=progress,
            )
        elif train is not None and group == "dialogue":
            result |= dialogue_probes(
                model,
                tokenizer,
                train,
                test,
                metrics=wanted,
                generated=generated,
                vectors=vectors,
                seed=seed,
                batch_size=batch_size,
                progress=progress,
            )
        elif train is not None:
            (name,) = SUPERVISED
            result[name] = supervised_baseline(
                len(tokenizer),
                train,
                test,
                seed=seed,
                device=next(model.parameters()).device,
                progress=progress,
            )
    return result


def check_request(
    model: Model,
    metrics: Sequence[str] | None,
    *,
    samples: int,
    generated: int,
    vectors: str | Path | None = None,
) -> set[str]:
    """Refuse unknown figures, and what gives none; parameters as in `probe`.

    Returns
    -------
    set of str
        The figures that are asked for, groups spelled out.

    Raises
    ------
    UserError
    """
    names = _expanded(metrics, {"standard": metric_names(model), **PROBES})
    if samples < 1:
        raise UserError(f"samples must be at least 1, not {samples}")
    if generated < 2:
        raise UserError(f"generated must be at least 2, not {generated}")
    if vectors is not None:
        if not names & set(EMBEDDINGS):
            raise UserError("word vectors are of use with the embedding_… figures only")
        if not Path(vectors).is_file():
            raise UserError(f"cannot read the vectors {vectors}: there is no such file")
    return names


def _expanded(metrics: Sequence[str] | None, groups: dict[str, Sequence[str]]) -> set[str]:
    every = {name for members in groups.values() for name in members}
    found: set[str] = set()
    for name in metrics if metrics is not None else ["standard"]:
        if name in groups:
            found.update(groups[name])
        elif name in every:
            found.add(name)
        else:
            raise unknown_name("metric", name, [*groups, *sorted(every)])
    return found
