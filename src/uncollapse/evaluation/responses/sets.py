"""Sampled responses and references of each context, and means over contexts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uncollapse.errors import UserError
from uncollapse.evaluation.metric import Metric, no_figure

Words = list[str]

NO_CONTEXT = "none: no context has anything to compare"


@dataclass(frozen=True)
class ResponseSets:
    """What a model and what people answered to each context.

    Attributes
    ----------
    hypotheses : list of list of list of str
        Contexts × samples × words. The words are the tokens of the tokenizer, in its case,
        without ``<s>`` and ``</s>``; a response may have none.
    references : list of list of list of str
        Contexts × references × words.

    Raises
    ------
    UserError
        For no context at all, for unequal numbers of contexts, and for a context without
        samples or without references.
    """

    hypotheses: list[list[Words]]
    references: list[list[Words]]

    def __post_init__(self) -> None:
        sampled, referenced = len(self.hypotheses), len(self.references)
        if sampled != referenced:
            raise UserError(
                f"{sampled:,} contexts have samples, but {referenced:,} have references"
            )
        if not sampled:
            raise UserError("there are no contexts to compare responses of")
        for what, groups in (("sample", self.hypotheses), ("reference", self.references)):
            for number, group in enumerate(groups, 1):
                if not group:
                    raise UserError(f"context {number:,} has no {what}")

    def __len__(self) -> int:
        return len(self.hypotheses)

    def sizes(self) -> str:
        """``10 samples and 1 reference a context``: every figure here depends on both."""
        return (
            f"{_count(self.hypotheses, 'sample')} and "
            f"{_count(self.references, 'reference')} a context"
        )

    def pairs(self) -> Pairs:
        """All pairs of a sample and a reference of the same context."""
        samples = np.array([len(group) for group in self.hypotheses])
        references = np.array([len(group) for group in self.references])
        context = np.repeat(np.arange(len(self)), samples)  # (S,)
        each = references[context]  # pairs of each sample, (S,)
        sample = np.repeat(np.arange(len(context)), each)  # (P,)
        first_reference = np.cumsum(references) - references
        within = np.arange(len(sample)) - np.repeat(np.cumsum(each) - each, each)
        reference = first_reference[context[sample]] + within
        return Pairs(sample, reference, context, np.repeat(np.arange(len(self)), references))


@dataclass(frozen=True)
class Pairs:
    """Pairs of a sample and a reference: by context, then by sample, then by reference.

    A number a pair is not defined for is NaN; what has no number at all is left out of the
    mean that it would be in.

    Attributes
    ----------
    sample, reference : ndarray
        ``(P,)``: which of all samples, and which of all references.
    sample_context, reference_context : ndarray
        ``(S,)`` and ``(R,)``: the context of each.
    """

    sample: np.ndarray
    reference: np.ndarray
    sample_context: np.ndarray
    reference_context: np.ndarray

    def precision(self, values: np.ndarray) -> np.ndarray:
        """Mean over samples of the best reference's number, ``(P,) -> (contexts,)``."""
        return _mean_of_best(values, self.sample, self.sample_context)

    def recall(self, values: np.ndarray) -> np.ndarray:
        """Mean over references of the best sample's number, ``(P,) -> (contexts,)``."""
        return _mean_of_best(values, self.reference, self.reference_context)


def mean_over_contexts(
    values: np.ndarray, unit: str, estimator: str, definition: str, sets: ResponseSets
) -> Metric:
    """Mean of one number a context ``(contexts,)``, NaN left out, and its error over contexts."""
    known = values[~np.isnan(values)]
    if not len(known):
        return no_figure(unit, f"{NO_CONTEXT}; {estimator}", definition)
    count = len(known)
    error = float(known.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    estimator = f"{estimator}; {sets.sizes()}; {over_contexts(count, len(sets))}"
    return Metric(float(known.mean()), unit, error, estimator, len(sets), definition)


def harmonic_mean(
    precision: np.ndarray,
    recall: np.ndarray,
    unit: str,
    estimator: str,
    definition: str,
    sets: ResponseSets,
) -> Metric:
    """F1 of the mean precision and the mean recall over contexts, two numbers a context.

    The error is that of the delta method, in which both numbers of a context go together.
    """
    count = len(precision)
    p, r = float(precision.mean()), float(recall.mean())
    value, error = 0.0, None
    if p + r > 0:
        value = 2 * p * r / (p + r)
        slopes = 2 * np.square([r, p]) / (p + r) ** 2
        along = slopes[0] * precision + slopes[1] * recall
        error = float(along.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    estimator = (
        f"{estimator}; {sets.sizes()}; {over_contexts(count, count)}; error by the delta method"
    )
    return Metric(value, unit, error, estimator, count, definition)


def over_contexts(used: int, all_contexts: int) -> str:
    """``mean over 7,000 contexts``, and how many had nothing to give to it."""
    left_out = all_contexts - used
    note = f" ({left_out:,} more have no figure)" if left_out else ""
    return f"mean over {used:,} contexts{note}"


def _mean_of_best(values: np.ndarray, side: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Mean over the members of one side of their greatest number, ``(contexts,)``."""
    contexts = int(context[-1]) + 1
    best = np.full(len(context), np.nan)
    np.fmax.at(best, side, values)  # fmax: a number wins over NaN
    known = ~np.isnan(best)
    sums = np.bincount(context[known], best[known], contexts)
    counts = np.bincount(context[known], minlength=contexts)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _count(groups: Sequence[Sequence[Words]], what: str) -> str:
    fewest, most = min(map(len, groups)), max(map(len, groups))
    number = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return f"{number} {what}" + ("" if most == 1 else "s")
