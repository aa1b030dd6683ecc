"""One figure and everything that one must know to compare it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

DASH = "–"


@dataclass(frozen=True)
class Metric:
    """A figure.

    Attributes
    ----------
    value : float or None
        None: the model has no such figure (an autoencoder has no likelihood).
    unit : str
        E.g. ``"nats/sentence"``.
    standard_error : float or None
        None where none is known.
    estimator : str
        How it was computed, in words, with every count and threshold that it depends on.
    samples : int
        Draws of z a sentence where the estimator draws to integrate over z; elsewhere the
        number of sentences. ``estimator`` names both.
    definition : str
        What is estimated.
    """

    value: float | None
    unit: str
    standard_error: float | None
    estimator: str
    samples: int
    definition: str

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    def format(self) -> str:
        """Value and error for a table, ``100.3 ± 0.4``; a dash where there is no figure.

        As many decimals as show the first digit of the error, from 1 to 4.
        """
        if self.value is None:
            return DASH
        error = self.standard_error
        if not error:
            return f"{self.value:.4g}"
        decimals = min(max(1, -math.floor(math.log10(error))), 4)
        return f"{self.value:z.{decimals}f} ± {error:.{decimals}f}"


def no_figure(unit: str, reason: str, definition: str) -> Metric:
    """A dash, with the reason in place of the estimator."""
    return Metric(None, unit, None, reason, 0, definition)


def mean_over_sentences(
    values: np.ndarray, unit: str, estimator: str, definition: str, samples: int | None = None
) -> Metric:
    """Mean of one number a sentence ``(N,)``, with its error over sentences.

    ``samples`` is N unless the numbers are themselves estimates from that many draws.
    """
    count = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    estimator = f"{estimator}; mean over {count:,} sentences"
    return Metric(float(values.mean()), unit, error, estimator, samples or count, definition)


def ratio_over_sentences(above: np.ndarray, below: np.ndarray) -> tuple[float, float | None]:
    """Σ above / Σ below of two numbers a sentence ``(N,)``, and its delta-method error."""
    count = len(above)
    ratio = float(above.sum() / below.sum())
    if count < 2:
        return ratio, None
    residual = above - ratio * below  # sums to zero
    spread = math.sqrt(float(np.square(residual).sum()) * count / (count - 1))
    return ratio, spread / float(below.sum())
