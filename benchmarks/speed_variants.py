"""What `speed.py` measures: every variant of every workload, as a worker process runs it.

A variant sets itself up, then takes turns: it waits to be told, does one round on data that it
has not seen before, and reports what it did and how long it took.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SEED = 1
WEIGHTS = "weights.pt"  # of the model trained in bf16, which the other workloads use


@dataclass(frozen=True)
class Settings:
    """What is measured; the default is the common configuration of the literature."""

    folder: Path  # for corpora, weights and run folders
    corpus: str = ""
    embedding_dim: int = 512
    hidden_dim: int = 256
    latent_dim: int = 32
    dropout: float = 0.5  # of the decoder's embeddings and states
    clip_norm: float = 5.0
    rounds: int = 7
    batches: int = 30  # a round of training, 32 sentences each
    sentences: int = 4  # a round of likelihood
    samples: int = 500
    plain_rows: int = 256  # a round of sampling by the plain loop, in one batch
    rows: int = 512
    max_length: int = 100


@dataclass(frozen=True)
class Round:
    """One turn of one variant."""

    count: int  # tokens or sentences
    seconds: float
    peak_mb: float
    figure: float = 0.0  # what was computed, for comparison

    @property
    def rate(self) -> float:
        return self.count / self.seconds


class Turns:
    """A worker's end of the pipe: one turn at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._started = 0.0

    def next(self) -> bool:
        """Say that the last turn is over; wait for the next one, or hear that there is none."""
        self._connection.send(None)
        again = self._connection.recv()
        self._started = time.perf_counter()
        return again

    def done(self, count: int, figure: float = 0.0) -> None:
        seconds = time.perf_counter() - self._started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._connection.send(Round(count, seconds, peak, figure))


# --- training -----------------------------------------------------------------------------


def train_plain(settings: Settings, turns: Turns, *, pool: int) -> None:
    import torch
    from plain_reference import train_step

    from uncollapse.data.batches import BucketedBatches

    model = build_plain(settings)
    optimizer = torch.optim.Adam(model.parameters())
    batches = BucketedBatches(corpora(settings)[0], 32, pool=pool, seed=SEED).epoch(0)
    train_step(model, optimizer, next(batches), settings.clip_norm)
    while turns.next():
        tokens = 0
        for _ in range(settings.batches):
            batch = next(batches)
            train_step(model, optimizer, batch, settings.clip_norm)
            tokens += int((batch.lengths - 1).sum())
        turns.done(tokens)


def train_ours(settings: Settings, turns: Turns, *, precision: str) -> None:
    """The package's own training, from batch assembly to the update, by its own function."""
    import torch
    from lightning.pytorch import Callback

    from uncollapse.objectives.objective import Objective
    from uncollapse.training.fit import fit

    model = build_model(settings)

    class Rounds(Callback):
        left, tokens = 1, 0  # the first batch warms up

        def on_train_batch_end(self, *what: Any) -> None:
            _, _, _, batch, number = what  # trainer, module and outputs come first
            self.left -= 1
            self.tokens += int((batch.lengths - 1).sum())
            if self.left > 0:
                return
            if number > 0:
                turns.done(self.tokens)
            if not turns.next():
                if precision == "bf16":
                    torch.save(model.state_dict(), settings.folder / WEIGHTS)
                os._exit(0)  # there is no need to end the run well
            self.left, self.tokens = settings.batches, 0

    train, validation = corpora(settings)
    chosen = recipe(settings, precision)
    run = settings.folder / f"run-{precision}"
    fit(
        model,
        Objective(chosen.objective),
        chosen,
        train,
        validation,
        run,
        seed=SEED,
        device="cpu",
        show_progress=False,
        callbacks=[Rounds()],
    )
    raise AssertionError("the corpus has fewer batches than were asked for")


# --- likelihood ---------------------------------------------------------------------------


def likelihood_plain(settings: Settings, turns: Turns) -> None:
    from plain_reference import importance_weighted

    from uncollapse.data.batches import sequential_batches
    from uncollapse.distributions.gaussian import standard_normal
    from uncollapse.evaluation.passes import streams

    model = build_plain(settings, trained=True).eval()
    corpus = corpora(settings)[1]
    for first in range(0, len(corpus), settings.sentences):
        if not turns.next():
            return
        part = _part(corpus, first, settings.sentences)
        total = 0.0
        for batch in sequential_batches(part, 1):
            stream = streams(SEED, batch.index)
            noise = standard_normal(stream, settings.samples, settings.latent_dim)[0]
            total += importance_weighted(model, batch.tokens, noise.float())
        turns.done(len(part), -total / len(part))


def likelihood_ours(settings: Settings, turns: Turns, *, precision: str) -> None:
    """The package's estimator; it is f32, and bf16 shows what that costs and would gain."""
    import torch
    from torch import Tensor

    from uncollapse.data.batches import Batch
    from uncollapse.encoders.context import Condition
    from uncollapse.evaluation.likelihood import score_sentences

    model = build_model(settings, trained=True)
    exact = model.decoder.log_prob_samples

    def rounded(z: Tensor | None, batch: Batch, condition: Condition | None = None) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return exact(z, batch, condition)

    if precision == "bf16":
        model.decoder.log_prob_samples = rounded
    corpus = corpora(settings)[1]
    for first in range(0, len(corpus), settings.sentences):
        if not turns.next():
            return
        part = _part(corpus, first, settings.sentences)
        scores = score_sentences(model, part, samples=settings.samples, seed=SEED)
        assert scores.log_likelihood is not None
        turns.done(len(part), -float(scores.log_likelihood.mean()))


# --- sampling -----------------------------------------------------------------------------


def sample_plain(settings: Settings, turns: Turns, *, drop_finished: bool) -> None:
    import torch
    from plain_reference import sample

    model = build_plain(settings, trained=True).eval()
    torch.manual_seed(SEED)
    while turns.next():
        z = torch.randn(settings.plain_rows, settings.latent_dim)
        written = sample(model, z, settings.max_length, drop_finished=drop_finished)
        turns.done(sum(len(words) + 1 for words in written), _mean_length(written))


def sample_ours(settings: Settings, turns: Turns, *, precision: str) -> None:
    import torch

    from uncollapse.decoders.generation import generate
    from uncollapse.evaluation.passes import evaluating

    model = build_model(settings, trained=True)
    generator = torch.Generator().manual_seed(SEED)
    with evaluating(model), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        while turns.next():
            z = model.sample_prior(settings.rows, generator)
            written = generate(
                model.decoder,
                z,
                method="sample",
                max_length=settings.max_length,
                generator=generator,
            )
            turns.done(sum(len(words) + 1 for words in written), _mean_length(written))


def _mean_length(written: list[list[int]]) -> float:
    return sum(map(len, written)) / len(written)


# --- what the variants share --------------------------------------------------------------


def recipe(settings: Settings, precision: str = "f32") -> Any:
    from uncollapse.config import parse_recipe

    sizes = {"embedding_dim": settings.embedding_dim, "hidden_dim": settings.hidden_dim}
    dropout = {"embedding_dropout": settings.dropout, "output_dropout": settings.dropout}
    training = {"batch_size": 32, "clip_norm": settings.clip_norm, "precision": precision}
    return parse_recipe(
        {
            "name": "speed",
            "summary": "common configuration",
            "source": "He et al. 2019",
            "encoder": {"kind": "lstm", **sizes},
            "latents": {"z": {"dim": settings.latent_dim}},
            "decoder": {"kind": "lstm", **sizes, **dropout},
            "training": training,
        }
    )


def corpora(settings: Settings) -> list[Any]:
    """Training and held-out corpus; memory-mapped, once the parent has built them."""
    from uncollapse.data.corpus import Corpus
    from uncollapse.data.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(settings.folder / "tokenizer.json")
    names = ("train", "test")
    paths = (settings.folder / f"{name}.txt" for name in names)
    return [Corpus.build(path, tokenizer, cache=settings.folder / "cache") for path in paths]


def _part(corpus: Any, first: int, count: int) -> Any:
    """Sentences ``first`` to ``first + count``, as a corpus."""
    from uncollapse.data.corpus import Corpus

    end = min(first + count, len(corpus))
    return Corpus(corpus.tokens, corpus.offsets[first : end + 1], {}, corpus.report)


def build_model(settings: Settings, *, trained: bool = False) -> Any:
    import torch

    from uncollapse.data.tokenizer import Tokenizer
    from uncollapse.model import Model

    torch.manual_seed(SEED)
    words = len(Tokenizer.load(settings.folder / "tokenizer.json"))
    model = Model(recipe(settings), words)
    if trained:
        model.load_state_dict(torch.load(settings.folder / WEIGHTS))
    return model


def build_plain(settings: Settings, *, trained: bool = False) -> Any:
    from plain_reference import PlainVAE

    model = build_model(settings, trained=trained)
    plain = PlainVAE(
        len(model.decoder.output.weight),
        settings.embedding_dim,
        settings.hidden_dim,
        settings.latent_dim,
        settings.dropout,
    )
    plain.load_from(model)
    return plain


# --- all of them --------------------------------------------------------------------------

Variants = dict[str, tuple[Callable[..., None], dict[str, Any]]]
# the first variant of each workload is the plain one that the others are divided by
WORKLOADS: dict[str, Variants] = {
    "training": {
        "plain, bucketed batches": (train_plain, {"pool": 100}),
        "plain, random batches": (train_plain, {"pool": 1}),
        "uncollapse f32": (train_ours, {"precision": "f32"}),
        "uncollapse bf16": (train_ours, {"precision": "bf16"}),
    },
    "likelihood": {
        "plain, one sentence at a time": (likelihood_plain, {}),
        "uncollapse f32": (likelihood_ours, {"precision": "f32"}),
        "uncollapse, bf16 decoder": (likelihood_ours, {"precision": "bf16"}),
    },
    "sampling": {
        "plain, all rows to the end": (sample_plain, {"drop_finished": False}),
        "plain, finished rows dropped": (sample_plain, {"drop_finished": True}),
        "uncollapse f32": (sample_ours, {"precision": "f32"}),
        "uncollapse bf16": (sample_ours, {"precision": "bf16"}),
    },
}


def work(workload: str, variant: str, settings: Settings, connection: Connection) -> None:
    function, options = WORKLOADS[workload][variant]
    function(settings, Turns(connection), **options)
