"""All that a page says of one trained run, kept in the run's folder as ``summary.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uncollapse.errors import RunError
from uncollapse.saving import write_text

if TYPE_CHECKING:
    from uncollapse.loading import Data

FORMAT_VERSION = 1
SUMMARY = "summary.json"
PICTURED = 1_000  # sentences: more would only hide one another
READABLE = range(4, 16)  # words of a sentence that is shown in full


@dataclass(frozen=True)
class TestSentences:
    """The test sentences that are shown: at most `PICTURED`, evenly spread over the file.

    Attributes
    ----------
    texts : list of str
    labels : list of int or None
        Class of each, -1 where missing; None if there are none.
    label_names : list of str
        Sorted; numbers by value.
    rows : ndarray
        ``(N,)``: which of all sentences they are, empty rows not counted.
    total : int
        Sentences of the whole file, without empty rows.
    """

    __test__ = False  # the name is not meant for pytest

    texts: list[str]
    labels: list[int] | None
    label_names: list[str]
    rows: np.ndarray
    total: int

    @classmethod
    def read(cls, data: Data, text_column: str, label_column: str | None) -> TestSentences:
        """Read the sentences, and their classes where there are any.

        Parameters
        ----------
        data : path, hub data set name or sequence of str
        text_column : str
        label_column : str or None
            None: a column ``label``, if there is one.

        Raises
        ------
        UserError
            For a faulty source.
        """
        from uncollapse.config import DataConfig
        from uncollapse.loading import available_columns, has_columns, rows_of

        columns = [label_column] if label_column is not None and has_columns(data) else []
        if label_column is None:
            columns = available_columns(data, DataConfig(text_column=text_column), ["label"])
        rows = rows_of(data, text_column, columns)
        found = [
            (row.text, row.labels[0] if row.labels else None)
            for row in rows
            if row.response and row.text.split()
        ]
        chosen = np.unique(np.linspace(0, len(found) - 1, min(PICTURED, len(found))).astype(int))
        shown = [found[number] for number in chosen]
        names = sorted({label for _, label in shown if label is not None}, key=_by_value)
        numbers = {name: number for number, name in enumerate(names)}
        labels = [-1 if label is None else numbers[label] for _, label in shown]
        texts = [text for text, _ in shown]
        return cls(texts, labels if names else None, names, chosen, len(found))

    def readable(self, n: int) -> list[str]:
        """``n`` sentences of moderate length, evenly spread; fewer if there are fewer."""
        candidates = [text for text in self.texts if len(text.split()) in READABLE] or self.texts
        candidates = list(dict.fromkeys(candidates))
        chosen = np.linspace(0, len(candidates) - 1, min(n, len(candidates))).astype(int)
        return [candidates[number] for number in chosen]


@dataclass(frozen=True)
class RunSummary:
    """One system trained with one seed, and measured on the test sentences.

    Attributes
    ----------
    name : str
        The recipe; with the value of a swept key, e.g. ``dgm-vae, beta=0.2``.
    seed : int
    metrics : dict
        By name, a `Metric` as a dictionary: ``value`` (None where the system has no such
        figure), ``unit``, ``standard_error``, ``estimator``, ``samples``, ``definition``.
    history : list of dict
        One row an epoch.
    verdict : dict
        ``state``, ``evidence`` and ``advice``.
    means : ndarray
        Posterior means ``(N, D)`` of the pictured test sentences, in standard deviations of the
        prior from its mean; ``(0, 0)`` for a language model.
    labels : list of int or None
        Their classes, -1 where missing.
    label_names : list of str
    kl_per_dimension : list of float
        Mean KL over the pictured sentences, nats; empty where there is no KL.
    samples : list of str
        Sentences from the prior.
    interpolations : list of list of str
        Each between two test sentences.
    reconstructions : list of (str, str)
        Test sentences, and what comes out for them.
    seconds : float
        Time spent in training, pretraining included.
    parameters : int
        Size of the network.
    sentences : dict of str to int
        How many there are in ``train``, ``validation`` and ``test``.
    responses : list of (list of str, str, list of str)
        Contexts, oldest turn first, what was really said in them, and what the model says.
    """

    name: str
    seed: int
    metrics: dict[str, dict[str, Any]]
    history: list[dict[str, Any]]
    verdict: dict[str, Any]
    means: np.ndarray
    labels: list[int] | None
    label_names: list[str]
    kl_per_dimension: list[float]
    samples: list[str]
    interpolations: list[list[str]]
    reconstructions: list[tuple[str, str]]
    seconds: float
    parameters: int
    sentences: dict[str, int]
    responses: list[tuple[list[str], str, list[str]]] = field(default_factory=list)

    @property
    def has_latent(self) -> bool:
        """Whether there are posterior means to show."""
        return self.means.size > 0

    def value(self, metric: str) -> float | None:
        """A figure, or None where the system has none."""
        return self.metrics.get(metric, {}).get("value")

    def save(self, folder: Path) -> None:
        """Write ``summary.json``, whole or not at all.

        Raises
        ------
        RunError
            If the disk refuses.
        """
        values = asdict(self)
        # a ten-thousandth of the prior's standard deviation is less than a pixel
        values["means"] = np.round(self.means.astype(np.float64), 4).tolist()
        text = json.dumps({"format_version": FORMAT_VERSION, **values}, ensure_ascii=False)
        write_text(folder / SUMMARY, text + "\n")

    @classmethod
    def load(cls, folder: Path) -> RunSummary | None:
        """Read ``summary.json``; None if the run has not been measured.

        Raises
        ------
        RunError
            If the file is damaged or of another format.
        """
        path = folder / SUMMARY
        try:
            values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if values["format_version"] != FORMAT_VERSION:
                raise ValueError("format")
            known = {one.name: values[one.name] for one in fields(cls) if one.name in values}
            rows = known["means"]
            shape = (len(rows), len(rows[0]) if rows else 0)
            known["means"] = np.array(rows, np.float64).reshape(shape)  # (N, D)
            known["reconstructions"] = [(a, b) for a, b in known["reconstructions"]]
            known["responses"] = [(a, b, c) for a, b, c in known.get("responses", [])]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            reason = (
                error.strerror if isinstance(error, OSError) else "its content is not a summary"
            )
            raise RunError(
                f"{path} cannot be read: {reason}; remove it, and the run is measured again"
            ) from None
        return cls(**known)


def _by_value(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name
