"""What is measured of a trained run, and the sentences that it writes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uncollapse.benchmark.summary import RunSummary, TestSentences
from uncollapse.saving import read_config

if TYPE_CHECKING:
    from uncollapse.data.corpus import Corpus
    from uncollapse.loading import Data
    from uncollapse.text_vae import TextVAE

SEED = 0  # of everything drawn for a summary
ANSWERED = 4  # contexts whose answers are shown
DRAWS = 10_000  # of a prior, for its mean
STEPS = 7  # of a way from one sentence to another
LONGEST = 100  # words of what is written


@dataclass(frozen=True)
class Measurement:
    """What is measured of every run.

    Attributes
    ----------
    metrics : tuple of str
        Figures or groups of them, as `TextVAE.evaluate` takes them.
    samples : int
        Importance samples of the likelihood.
    label_column : str or None
        Where the labels are, for the probes of representation, clusters and dialogue.
    generated : int
        Sentences that the generation probes write, and responses those of dialogue.
    vectors : str or None
        A file of word vectors for the probes of dialogue.
    """

    metrics: tuple[str, ...] = ("standard",)
    samples: int = 500
    label_column: str | None = None
    generated: int = 10_000
    vectors: str | None = None


def measure(
    vae: TextVAE,
    name: str,
    folder: Path,
    train: Data,
    test: Data,
    *,
    sentences: TestSentences,
    wanted: Measurement,
    device: str = "auto",
) -> RunSummary:
    """Measure a trained model on the test data, and let it write.

    Parameters
    ----------
    vae : TextVAE
    name : str
        What the comparison calls the system.
    folder : Path
        Of its run.
    train, test : path, hub data set name or sequence of str
        What it was trained on; what is measured, all of it.
    sentences : TestSentences
        What is shown of the test data.
    wanted : Measurement
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    """
    from uncollapse.evaluation.information import kl_per_dimension

    vae.to(device)
    facts = read_config(folder)["run"]
    found = vae.evaluate(
        test,
        wanted.metrics,
        train=train,
        label_column=wanted.label_column,
        samples=wanted.samples,
        generated=wanted.generated,
        vectors=wanted.vectors,
        seed=SEED,
    )
    metrics = {key: metric.to_dict() for key, metric in found.items()}
    means, kl = np.zeros((0, 0)), np.zeros(0)
    interpolations, reconstructions = [], []
    if vae.model.latent_dim:
        corpus = pictured(vae, test, sentences)
        means = _standardised(vae, corpus)
        if metrics.get("kl", {}).get("value") is not None:
            kl = kl_per_dimension(vae.model, corpus)
            if len(kl) == 1 < vae.model.latent_dim:
                kl = np.zeros(0)  # known in total only, as under a mixture
        ends = sentences.readable(4)
        chosen = corpus.select(np.array([sentences.texts.index(text) for text in ends]))
        interpolations, written = _written(vae, chosen)
        reconstructions = list(zip(ends, written, strict=True))
    return RunSummary(
        name=name,
        seed=facts["seed"],
        metrics=metrics,
        history=vae.history_,
        verdict=asdict(vae.diagnose(test)),
        means=means,
        labels=sentences.labels,
        label_names=sentences.label_names,
        kl_per_dimension=[round(float(value), 6) for value in kl],
        samples=vae.sample(8, seed=SEED),
        responses=_responses(vae, test, sentences),
        interpolations=interpolations,
        reconstructions=reconstructions,
        seconds=sum(row["seconds"] for row in (*_pretraining(folder), *vae.history_)),
        parameters=sum(weights.numel() for weights in vae.model.parameters()),
        sentences={
            "train": facts["train_sentences"],
            "validation": facts["validation_sentences"],
            "test": sentences.total,
        },
    )


def pictured(vae: TextVAE, test: Data, sentences: TestSentences) -> Corpus:
    """The sentences that are shown, in their contexts if the model is told of any."""
    from uncollapse.loading import corpus_of

    if vae.model.context is None:
        return corpus_of(sentences.texts, vae.tokenizer, vae.recipe.data)
    return vae._corpus(test, None).select(sentences.rows)


def _responses(
    vae: TextVAE, test: Data, sentences: TestSentences
) -> list[tuple[list[str], str, list[str]]]:
    """Contexts of a few of the sentences that are shown, those, and what the model answers."""
    corpus = pictured(vae, test, sentences)
    contexts = corpus.contexts
    if contexts is None:
        return []
    rows = np.flatnonzero(contexts.turns)
    spread = np.linspace(0, len(rows) - 1, min(ANSWERED, len(rows)))  # not of one dialogue
    rows = rows[spread.round().astype(np.int64)]
    turns, given = [], []
    for row in rows:
        utterances = range(contexts.first[row], contexts.last[row])
        own = [contexts.tokens[contexts.offsets[u] : contexts.offsets[u + 1]] for u in utterances]
        turns.append([vae.tokenizer.decode(ids) for ids in own])
        who = [_speaker(int(contexts.speakers[u])) for u in utterances]
        said = [{"speaker": s, "text": t} for s, t in zip(who, turns[-1], strict=True)]
        known = {
            name: column.names[column.ids[row]]
            for name, column in corpus.columns.items()
            if column.ids[row] >= 0
        }
        given.append({**known, "turns": said, "speaker": _speaker(int(contexts.speaker[row]))})
    method = "greedy" if vae.model.latent_dim else "sample"  # as the figures are measured
    answers = vae.respond(given, n=3, method=method, seed=SEED)
    real = [vae.tokenizer.decode(corpus.sentence(row)) for row in rows]
    texts = [[answer.text for answer in own] for own in answers]
    return list(zip(turns, real, texts, strict=True))


def _speaker(number: int) -> str | None:
    return str(number) if number >= 0 else None


def _written(vae: TextVAE, ends: Corpus) -> tuple[list[list[str]], list[str]]:
    """Ways from the first two of at most four sentences to the others, and reconstructions.

    Each is written in the context of its sentence, a way in that of its first end.
    """
    import torch

    from uncollapse.evaluation.passes import posterior_pass
    from uncollapse.evaluation.reconstruction import write_greedily

    found = posterior_pass(vae.model, ends)
    assert found is not None
    count = len(ends)
    starts, share = range(max(0, count - 2)), torch.linspace(0, 1, STEPS)[:, None]
    ways = [torch.lerp(found.means[i], found.means[i + 2], share) for i in starts]
    rows = np.append(np.arange(count), np.repeat(starts, STEPS)).astype(np.int64)
    written = write_greedily(vae.model, ends.select(rows), torch.cat([found.means, *ways]), LONGEST)
    texts = [vae.tokenizer.decode(ids) for ids in written]
    return [texts[i : i + STEPS] for i in range(count, len(texts), STEPS)], texts[:count]


def _standardised(vae: TextVAE, corpus: Corpus) -> np.ndarray:
    """Posterior means ``(N, D)`` from that of the prior on, in standard deviations of the prior."""
    import torch

    from uncollapse.evaluation.passes import posterior_pass, prior_scale

    found = posterior_pass(vae.model, corpus)
    assert found is not None
    means = found.relative_means.double().numpy()  # (N, D)
    if vae.model.variable_sizes():  # mixtures and codes have a middle of their own
        draws = vae.model.sample_prior(DRAWS, torch.Generator().manual_seed(SEED))
        assert draws is not None
        means = means - draws.double().mean(0).cpu().numpy()
    return means / prior_scale(vae.model).numpy()


def _pretraining(folder: Path) -> list[dict[str, Any]]:
    """The history of the epochs before the run's own, if there were any."""
    history = folder / "pretraining" / "history.jsonl"
    if not history.is_file():
        return []
    return [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
