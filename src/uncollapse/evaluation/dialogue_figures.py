"""The names of all figures of dialogue, and their dashes."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from uncollapse.data.vectors import Vectors
from uncollapse.evaluation.metric import Metric, no_figure
from uncollapse.evaluation.response_labels import DEFINITIONS as LABELS
from uncollapse.evaluation.response_labels import UNITS
from uncollapse.evaluation.responses.bleu import (
    response_bleu,
    response_bleu_sacre,
    response_bleu_wae,
)
from uncollapse.evaluation.responses.diversity import response_diversity
from uncollapse.evaluation.responses.embeddings import response_embeddings, response_embeddings_wae
from uncollapse.evaluation.responses.sets import ResponseSets

RULES = ("precision", "recall", "f1")
BLEU = (
    *(f"bleu_{order}_{rule}" for order in (1, 2, 3, 4) for rule in RULES),
    *(f"bleu_{rule}_wae" for rule in RULES),
    "bleu_sacre",
)
SUMMARIES = ("average", "extrema", "greedy")
EMBEDDINGS = (
    *(f"embedding_{name}{rule}" for name in SUMMARIES for rule in ("", "_recall")),
    *(f"embedding_{n}_cvae_{rule}" for n in ("average", "extrema") for rule in RULES[:2]),
    *(f"embedding_{name}_wae" for name in SUMMARIES),
)
DIVERSITY = (
    *(f"distinct_{order}_{where}" for order in (1, 2) for where in ("intra", "inter")),
    "response_length",
    "unique_share",
    "generic_share",
)
PPL = "ppl_reconstruction"
DIALOGUE = (*BLEU, *EMBEDDINGS, *DIVERSITY, PPL, *LABELS)
# of these, what a table shows that has room for some
HEADLINE = (
    "bleu_4_precision",
    "bleu_4_recall",
    "bleu_f1_wae",
    "embedding_average",
    "embedding_extrema",
    "embedding_greedy",
    "distinct_2_inter",
    "response_length",
    "generic_share",
    PPL,
    "response_label_accuracy",
)
PPL_DEFINITION = (
    "exp(−Σ E_q log p(x|z, context) / Σ (words + 1)) of the real responses: without the KL, as "
    "dialogue papers report it, and hence no likelihood"
)


def dashes(names: Collection[str], reason: str) -> dict[str, Metric]:
    """Dashes for some figures, with the units and definitions that they would have."""
    sets, vectors = ResponseSets([[["a"]]], [[["a"]]]), Vectors({"a": 0}, np.ones((1, 1)), "")
    known = {
        **response_bleu(sets),
        **response_bleu_wae(sets),
        **response_bleu_sacre(sets),
        **response_embeddings(sets, vectors),
        **response_embeddings_wae(sets, vectors),
        **response_diversity(sets, []),
    }
    units = {name: (metric.unit, metric.definition) for name, metric in known.items()}
    units |= {PPL: ("per token", PPL_DEFINITION)}
    units |= {name: (UNITS[name], definition) for name, definition in LABELS.items()}
    return {name: no_figure(units[name][0], f"none: {reason}", units[name][1]) for name in names}
