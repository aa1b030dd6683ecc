"""How much of a sentence comes back from its z: BLEU of greedy reconstructions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from uncollapse.data.batches import sequential_batches
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.decoders.generation import generate
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.passes import PosteriorPass, evaluating
from uncollapse.model import Model

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

RESAMPLES = 200
WRITTEN = 512  # sentences written together
DEFINITION = (
    "corpus BLEU-4 (0 to 100) of the greedy decoding of E_q z, of codes and directions the one "
    "nearest to it, against the sentence"
)


def reconstruction_bleu(
    model: Model, corpus: Corpus, tokenizer: Tokenizer, found: PosteriorPass
) -> Metric:
    """BLEU of greedy reconstructions.

    Parameters
    ----------
    found : PosteriorPass
        Of this corpus.

    Returns
    -------
    Metric
        ``estimator`` holds the signature of sacrebleu; text is split at white space only, as
        the corpora are tokenised. The error is a bootstrap over sentences.
    """
    longest = int(corpus.lengths.max())
    written = write_greedily(model, corpus, found.means, longest)
    outputs = [tokenizer.decode(ids) for ids in written]
    references = [tokenizer.decode(corpus.sentence(i)) for i in range(len(corpus))]
    value, error, signature = corpus_bleu(outputs, references)
    estimator = (
        f"greedy, at most {longest} words; {len(corpus):,} sentences; "
        f"sacrebleu {signature}; bootstrap error"
    )
    return Metric(value, "BLEU", error, estimator, len(corpus), DEFINITION)


def write_greedily(model: Model, corpus: Corpus, z: Tensor, max_length: int) -> list[list[int]]:
    """Greedy sentences at the points next to ``z`` ``(N, D)``, each in the context of its row."""
    written: dict[int, list[int]] = {}
    with evaluating(model) as device:
        for batch in sequential_batches(corpus, WRITTEN):
            batch = batch.to(device)
            near = model.in_support(z[batch.index.cpu()].to(device))
            sentences = generate(
                model.decoder, near, condition=model.read(batch), max_length=max_length
            )
            written |= dict(zip(batch.index.tolist(), sentences, strict=True))
    return [written[row] for row in range(len(corpus))]


def corpus_bleu(outputs: list[str], references: list[str]) -> tuple[float, float | None, str]:
    """Corpus BLEU-4, its bootstrap error over sentences (None for one), and the signature."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize="none", force=True)
    value = bleu.corpus_score(outputs, [references]).score
    signature = str(bleu.get_signature())
    if len(outputs) < 2:
        return value, None, signature
    counts = _sentence_counts(BLEU(tokenize="none", effective_order=True), outputs, references)
    random = np.random.default_rng(0)
    scores = []
    for _ in range(RESAMPLES):
        times = np.bincount(random.integers(0, len(counts), len(counts)), minlength=len(counts))
        total = (times @ counts).tolist()  # (10,)
        score = BLEU.compute_bleu(
            correct=total[2:6],
            total=total[6:],
            sys_len=total[0],
            ref_len=total[1],
            smooth_method="exp",
        )
        scores.append(score.score)
    return value, float(np.std(scores, ddof=1)), signature


def _sentence_counts(bleu: BLEU, outputs: list[str], references: list[str]) -> np.ndarray:
    """Lengths of output and reference, matches and totals of 1- to 4-grams, ``(N, 10)``."""
    rows = []
    for output, reference in zip(outputs, references, strict=True):
        score = bleu.sentence_score(output, [reference])
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return np.array(rows, np.int64)
