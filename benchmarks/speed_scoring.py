"""Likelihood: the naive estimator, a sentence at a time, and the package's own."""

from __future__ import annotations

from typing import Any

from speed_settings import SEED, Settings, build_model, build_plain, corpus, sentences
from speed_turns import Turns


def plain(settings: Settings, turns: Turns, *, family: str, count: int) -> None:
    """Each sentence by itself, its samples in chunks.

    The noise is the package's, so that Gaussian families have to agree to the digit.
    """
    import numpy as np
    import torch
    from plain.vae import importance_weighted

    from uncollapse.data.batches import sequential_batches
    from uncollapse.distributions.gaussian import standard_normal

    model = build_plain(settings, family, trained=True).eval()
    random = np.random.default_rng(SEED)
    part = Part(settings, family, count)
    while turns.next():
        nlls, errors, tokens = {}, {}, 0
        chosen = part.next()
        with torch.no_grad():
            for batch in sequential_batches(chosen, 1):
                found = model.infer(batch)
                if family == "vmf":
                    z = model.sample(found, settings.samples, random)
                else:
                    stream = np.random.default_rng((SEED, int(batch.index)))
                    noise = standard_normal([stream], settings.samples, model.latent_dim)[0]
                    z = model.draw(found, noise.float())
                row = int(batch.index)
                value, errors[row] = importance_weighted(model, batch, found, z)
                nlls[row] = -value
                tokens += int(batch.lengths.sum()) - 1
        rows = sorted(nlls)
        turns.done(
            tokens,
            figures=[nlls[row] for row in rows],
            errors=[errors[row] for row in rows],
        )


def ours(settings: Settings, turns: Turns, *, family: str, count: int, precision: str) -> None:
    """The package's estimator; it is f32, and bf16 shows what that costs and would gain."""
    from uncollapse.evaluation.likelihood import score_sentences

    model = build_model(settings, family, trained=True)
    if precision == "bf16":
        in_bf16(model.decoder)
    part = Part(settings, family, count)
    # compiles what is compiled, and fills the caches
    score_sentences(model, part.first(), samples=settings.samples, seed=SEED)
    while turns.next():
        chosen = part.next()
        scores = score_sentences(model, chosen, samples=settings.samples, seed=SEED)
        assert scores.log_likelihood is not None
        nlls = (-scores.log_likelihood).tolist()
        turns.done(int(scores.tokens.sum()), figures=nlls)


class Part:
    """Sentences from all over the test set, others in every turn, the same for all variants."""

    def __init__(self, settings: Settings, family: str, count: int) -> None:
        import numpy as np

        self._corpus = corpus(settings, family, "test")
        self._order = np.random.default_rng(SEED).permutation(len(self._corpus))
        self._count = count
        self._used = 0

    def first(self) -> Any:
        """A short sentence or so, to warm up."""
        return sentences(self._corpus, 0, 1)

    def next(self) -> Any:
        """The next sentences."""
        rows = self._order[self._used : self._used + self._count]
        self._used += self._count
        return self._corpus.select(rows)


def in_bf16(decoder: Any) -> None:
    """Have a decoder score under automatic mixed precision."""
    import torch

    exact = decoder.log_prob_samples

    def rounded(*arguments: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return exact(*arguments)

    decoder.log_prob_samples = rounded
